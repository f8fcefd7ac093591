package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EngineOptions says where the engine and its data are.
type EngineOptions struct {
	// Library is the path of libchdb.so; LibraryPath finds it. Required.
	Library string
	// DataDir holds the databases; it is made when missing. Required. One process
	// at a time can use it, and a process can use one at a time.
	DataDir string
	// MaxQueries bounds the statements that run at once; further ones wait.
	// 0 means 64.
	MaxQueries int
	// MemoryLimit bounds the memory of all statements together, in bytes. 0 means
	// the engine's own default, nine tenths of the machine's.
	MemoryLimit int64
	// Backups is the folder that BACKUP … TO File and RESTORE … FROM File may use;
	// relative names are of files in it. Empty: none.
	Backups string
}

// Engine is the ClickHouse engine inside this process. It is safe for concurrent
// use. Close MUST be called before the process ends: the engine's threads do not
// survive the end of a process with open connections.
type Engine struct {
	lib     *library
	version string
	lock    *os.File
	slots   chan struct{}

	path string
	base *uintptr       // keeps the engine up between statements
	open sync.WaitGroup // the connections besides base

	mu     sync.Mutex
	closed bool
}

var errEngineClosed = errors.New("the engine is closed")

// oneEngine guards the rule of one data path per process, for which the engine
// itself has no words.
var oneEngine = make(chan struct{}, 1)

// OpenEngine loads the library and opens the data directory.
func OpenEngine(options EngineOptions) (*Engine, error) {
	if options.Library == "" || options.DataDir == "" {
		return nil, errors.New("open ClickHouse engine: Library and DataDir are required")
	}
	if options.MaxQueries == 0 {
		options.MaxQueries = 64
	}
	if options.MaxQueries < 0 || options.MemoryLimit < 0 {
		return nil, errors.New("open ClickHouse engine: MaxQueries and MemoryLimit must not be negative")
	}
	select {
	case oneEngine <- struct{}{}:
	default:
		return nil, errors.New("open ClickHouse engine: this process has one open already")
	}
	engine, err := openEngine(options)
	if err != nil {
		<-oneEngine
		return nil, err
	}
	return engine, nil
}

func openEngine(options EngineOptions) (*Engine, error) {
	lib, err := loadLibrary(options.Library)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(options.DataDir)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse engine: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open ClickHouse engine: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse engine: %w", err)
	}
	args := []string{"clickhouse", "--path=" + dir}
	if options.MemoryLimit > 0 {
		args = append(args, fmt.Sprintf("--max_server_memory_usage=%d", options.MemoryLimit))
	}
	if options.Backups != "" {
		backups, err := filepath.Abs(options.Backups)
		if err != nil {
			lock.Close()
			return nil, fmt.Errorf("open ClickHouse engine: %w", err)
		}
		args = append(args, "--backups.allowed_path="+backups+string(filepath.Separator))
	}
	base := lib.open(args...)
	if base == nil {
		lock.Close()
		return nil, fmt.Errorf("open ClickHouse engine: the engine refused the data directory %s (its reason is on standard error)", dir)
	}
	return &Engine{
		lib:     lib,
		version: goString(lib.version()),
		lock:    lock,
		slots:   make(chan struct{}, options.MaxQueries),
		base:    base,
		path:    dir,
	}, nil
}

// lockDir takes the lock that says in plain words what the engine would refuse
// without any.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lethe.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another process is using the data directory %s", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return lock, nil
}

// Version is the version of the library, like 26.7.3.
func (e *Engine) Version() string { return e.version }

// Close waits for the statements that run and closes the engine. Closing twice is
// harmless.
func (e *Engine) Close() error {
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.mu.Unlock()
	if closed {
		return nil
	}
	e.open.Wait()
	e.lib.close(e.base)
	err := e.lock.Close()
	<-oneEngine
	if err != nil {
		return fmt.Errorf("close ClickHouse engine: %w", err)
	}
	return nil
}

// conn is one connection: the settings, current database and temporary tables of
// one request. It runs one statement at a time and is not safe for concurrent use.
type conn struct {
	engine *Engine
	handle *uintptr
	slot   bool
}

// connect opens a connection, which costs about a tenth of a millisecond. It waits
// while MaxQueries are open.
func (e *Engine) connect(ctx context.Context) (*conn, error) {
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	e.mu.Lock()
	closed := e.closed
	if !closed {
		e.open.Add(1)
	}
	e.mu.Unlock()
	if closed {
		<-e.slots
		return nil, errEngineClosed
	}
	c, err := e.connectMore()
	e.open.Done()
	if err != nil {
		<-e.slots
		return nil, err
	}
	c.slot = true
	return c, nil
}

// connectMore opens a connection outside the bound, for what must not wait behind
// the statements it is about. The caller has another one open meanwhile, so that
// the engine cannot close.
func (e *Engine) connectMore() (*conn, error) {
	handle := e.lib.open("clickhouse", "--path="+e.path)
	if handle == nil {
		return nil, errors.New("connect to ClickHouse engine: refused")
	}
	e.open.Add(1)
	return &conn{engine: e, handle: handle}, nil
}

func (c *conn) close() {
	c.engine.lib.close(c.handle)
	c.engine.open.Done()
	if c.slot {
		<-c.engine.slots
	}
}

// param is one query parameter: {name:Type} in the statement.
type param struct{ name, value string }

// summary counts what a statement did.
type summary struct {
	readRows, readBytes, writtenRows, writtenBytes uint64
}

// result is a finished statement's answer, or a part of a running one's.
type result struct {
	lib    *library
	handle uintptr
}

// bytes is C memory, valid until free.
func (r result) bytes() []byte {
	n := r.lib.resultLength(r.handle)
	if n == 0 {
		return nil
	}
	return unsafe.Slice(r.lib.resultBuffer(r.handle), n)
}

func (r result) err() error {
	if text := goString(r.lib.resultError(r.handle)); text != "" {
		return newException(text)
	}
	return nil
}

func (r result) summary() summary {
	return summary{
		readRows: r.lib.resultRead(r.handle), readBytes: r.lib.resultReadBytes(r.handle),
		writtenRows: r.lib.resultWritten(r.handle), writtenBytes: r.lib.resultWrote(r.handle),
	}
}

func (r result) free() { r.lib.resultDestroy(r.handle) }

// query runs a statement to its end and holds the whole answer. The caller frees
// the result when err is nil.
func (c *conn) query(text, format string, params []param) (result, error) {
	r := result{c.engine.lib, start(c.engine.lib.query, *c.handle, text, format, params)}
	if err := r.err(); err != nil {
		r.free()
		return result{}, err
	}
	return r, nil
}

// exec runs a statement whose answer nobody wants.
func (c *conn) exec(text string) error {
	r, err := c.query(text, "Null", nil)
	if err == nil {
		r.free()
	}
	return err
}

// stream is a SELECT that is answered block by block.
type stream struct {
	conn   *conn
	handle result
}

// stream starts a SELECT. errNotStreamable says that the statement is another kind
// and has not been run.
func (c *conn) stream(text, format string, params []param) (*stream, error) {
	r := result{c.engine.lib, start(c.engine.lib.streamQuery, *c.handle, text, format, params)}
	if err := r.err(); err != nil {
		r.free()
		return nil, err
	}
	return &stream{conn: c, handle: r}, nil
}

// next returns the next part of the answer; one without bytes is the end. The
// caller frees the part when err is nil.
func (s *stream) next() (result, error) {
	lib := s.conn.engine.lib
	r := result{lib, lib.streamFetch(*s.conn.handle, s.handle.handle)}
	if err := r.err(); err != nil {
		r.free()
		return result{}, err
	}
	return r, nil
}

func (s *stream) close() { s.handle.free() }

// insertion is an INSERT that takes its data piece by piece.
type insertion struct {
	lib    *library
	handle uintptr
}

// insert starts an INSERT; head is the statement without FORMAT and data.
func (c *conn) insert(head, format string, params []param) (*insertion, error) {
	i := &insertion{c.engine.lib, start(c.engine.lib.insert, *c.handle, head, format, params)}
	if text := goString(i.lib.insertError(i.handle)); text != "" {
		i.close()
		return nil, newException(text)
	}
	return i, nil
}

// Write hands over a piece, which the engine copies, and waits while it is behind.
// An error says only that the INSERT has failed; finish says why.
func (i *insertion) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if i.lib.insertAppend(i.handle, &p[0], uintptr(len(p))) != 0 {
		return 0, errInsertFailed
	}
	return len(p), nil
}

var errInsertFailed = errors.New("the insert has failed")

// finish commits the INSERT.
func (i *insertion) finish() (summary, error) {
	r := result{i.lib, i.lib.insertDone(i.handle)}
	defer r.free()
	return r.summary(), r.err()
}

// abort ends the INSERT without its last block.
func (i *insertion) abort() { i.lib.insertCancel(i.handle) }

func (i *insertion) close() { i.lib.insertDestroy(i.handle) }
