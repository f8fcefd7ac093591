package embedded

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is the part of libchdb's C interface that the engine uses. Handles
// are addresses of C memory and stay uintptr: Go's collector never sees them.
type library struct {
	setSignalHandlers func(enabled int32)
	version           func() *byte

	connect func(argc int32, argv **byte) *uintptr
	close   func(conn *uintptr)

	query       func(conn uintptr, query *byte, queryLen uintptr, format *byte, formatLen uintptr, names **byte, nameLens *uintptr, values **byte, valueLens *uintptr, count uintptr) uintptr
	streamQuery func(conn uintptr, query *byte, queryLen uintptr, format *byte, formatLen uintptr, names **byte, nameLens *uintptr, values **byte, valueLens *uintptr, count uintptr) uintptr
	streamFetch func(conn, stream uintptr) uintptr

	insert        func(conn uintptr, query *byte, queryLen uintptr, format *byte, formatLen uintptr, names **byte, nameLens *uintptr, values **byte, valueLens *uintptr, count uintptr) uintptr
	insertAppend  func(stream uintptr, data *byte, length uintptr) int32
	insertDone    func(stream uintptr) uintptr
	insertCancel  func(stream uintptr)
	insertError   func(stream uintptr) *byte
	insertDestroy func(stream uintptr)

	resultDestroy   func(result uintptr)
	resultBuffer    func(result uintptr) *byte
	resultLength    func(result uintptr) uintptr
	resultError     func(result uintptr) *byte
	resultRead      func(result uintptr) uint64
	resultReadBytes func(result uintptr) uint64
	resultWritten   func(result uintptr) uint64
	resultWrote     func(result uintptr) uint64
}

// loadLibrary opens libchdb at path. The library stays in the process: it cannot
// be unloaded.
func loadLibrary(path string) (*library, error) {
	switch info, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		return nil, missingLibrary(path)
	case err != nil:
		return nil, fmt.Errorf("load ClickHouse engine: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("load ClickHouse engine: %s is not a file; CHDB_LIB names the library itself (libchdb.so)", path)
	}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load ClickHouse engine: %s is not a library this machine can load (%w); run `make fetch` or set CHDB_LIB", path, err)
	}
	var lib library
	var missing []string
	bind := func(target any, symbol string) {
		address, err := purego.Dlsym(handle, symbol)
		if err != nil {
			missing = append(missing, symbol)
			return
		}
		purego.RegisterFunc(target, address)
	}
	bind(&lib.setSignalHandlers, "chdb_set_signal_handlers_enabled")
	bind(&lib.version, "chdb_version")
	bind(&lib.connect, "chdb_connect")
	bind(&lib.close, "chdb_close_conn")
	bind(&lib.query, "chdb_query_with_params_n")
	bind(&lib.streamQuery, "chdb_stream_query_with_params_n")
	bind(&lib.streamFetch, "chdb_stream_fetch_result")
	bind(&lib.insert, "chdb_stream_insert_with_params_n")
	bind(&lib.insertAppend, "chdb_stream_append")
	bind(&lib.insertDone, "chdb_stream_done")
	bind(&lib.insertCancel, "chdb_stream_cancel_insert")
	bind(&lib.insertError, "chdb_stream_insert_error")
	bind(&lib.insertDestroy, "chdb_destroy_insert_stream")
	bind(&lib.resultDestroy, "chdb_destroy_query_result")
	bind(&lib.resultBuffer, "chdb_result_buffer")
	bind(&lib.resultLength, "chdb_result_length")
	bind(&lib.resultError, "chdb_result_error")
	bind(&lib.resultRead, "chdb_result_storage_rows_read")
	bind(&lib.resultReadBytes, "chdb_result_storage_bytes_read")
	bind(&lib.resultWritten, "chdb_result_rows_written")
	bind(&lib.resultWrote, "chdb_result_bytes_written")
	if len(missing) > 0 {
		return nil, fmt.Errorf("load ClickHouse engine: %s is not libchdb 26.7 or newer (it lacks %s); run `make fetch` or set CHDB_LIB", path, strings.Join(missing, ", "))
	}
	// The engine's handlers would take SIGSEGV and others from Go's runtime.
	// This must happen before the first connection.
	lib.setSignalHandlers(0)
	return &lib, nil
}

// open makes a connection with the engine's command-line arguments. It returns
// nil when the engine refuses; the engine does not say why.
func (l *library) open(args ...string) *uintptr {
	argv := make([]*byte, len(args))
	for i, arg := range args {
		argv[i] = &append([]byte(arg), 0)[0]
	}
	conn := l.connect(int32(len(argv)), &argv[0])
	runtime.KeepAlive(argv)
	return conn
}

// statement is the shape that the three calls which start a statement share.
type statement func(conn uintptr, query *byte, queryLen uintptr, format *byte, formatLen uintptr, names **byte, nameLens *uintptr, values **byte, valueLens *uintptr, count uintptr) uintptr

// start calls one of them. Neither text needs to end in a NUL byte, and query
// parameters are bound, not written into the text.
func start(call statement, conn uintptr, query, format string, params []param) uintptr {
	text, form := cBytes(query), cBytes(format)
	n := len(params)
	names, values := make([]*byte, n+1), make([]*byte, n+1)
	nameLens, valueLens := make([]uintptr, n+1), make([]uintptr, n+1)
	for i, p := range params {
		names[i], nameLens[i] = cBytes(p.name), uintptr(len(p.name))
		values[i], valueLens[i] = cBytes(p.value), uintptr(len(p.value))
	}
	handle := call(conn, text, uintptr(len(query)), form, uintptr(len(format)),
		&names[0], &nameLens[0], &values[0], &valueLens[0], uintptr(n))
	runtime.KeepAlive(text)
	runtime.KeepAlive(form)
	runtime.KeepAlive(names)
	runtime.KeepAlive(values)
	return handle
}

// cBytes is s with a NUL byte behind it, so that no address is past the end.
func cBytes(s string) *byte {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return &b[0]
}

// goString copies a C string.
func goString(p *byte) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}
