package embedded

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// ClickHouseOptions says what the endpoint serves and where.
type ClickHouseOptions struct {
	// Engine answers. Required; the caller closes it after Stop.
	Engine *Engine
	// Addr is a loopback address with a port; port 0 takes a free one. Required.
	Addr string
	// User and Password are the only ones let in; an empty User means default.
	User, Password string
	// TLS switches TLS on.
	TLS *tls.Config
	// Logger gets the endpoint's life and no statement. nil logs nothing.
	Logger *slog.Logger
}

// ClickHouse is an HTTP endpoint like that of a ClickHouse server.
type ClickHouse struct {
	engine         *Engine
	addr           string
	user, password string
	tls            *tls.Config
	log            *slog.Logger

	server   *http.Server
	listener net.Listener
	done     chan error
	timezone string
	cancel   context.CancelFunc
}

// NewClickHouse checks the options. It starts nothing.
func NewClickHouse(options ClickHouseOptions) (*ClickHouse, error) {
	if options.Engine == nil {
		return nil, errors.New("make ClickHouse endpoint: Engine is required")
	}
	if err := checkLoopback(options.Addr); err != nil {
		return nil, fmt.Errorf("make ClickHouse endpoint: %w", err)
	}
	if options.User == "" {
		options.User = "default"
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &ClickHouse{
		engine: options.Engine,
		addr:   options.Addr,
		user:   options.User, password: options.Password,
		tls: options.TLS,
		log: options.Logger,
	}, nil
}

// checkLoopback refuses an address that other machines could reach: the endpoint
// and the broker are for trying and testing.
func checkLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("address %q is not a loopback address", addr)
	}
	return nil
}

// Start listens and serves until Stop.
func (d *ClickHouse) Start(ctx context.Context) error {
	if d.listener != nil {
		return errors.New("start ClickHouse endpoint: it has been started")
	}
	timezone, err := d.engine.scalar(ctx, "SELECT timezone()")
	if err != nil {
		return fmt.Errorf("start ClickHouse endpoint: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", d.addr)
	if err != nil {
		return fmt.Errorf("start ClickHouse endpoint: %w", err)
	}
	// Statements outlive Start's ctx; Stop ends those that do not end by themselves.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.timezone, d.listener, d.cancel = timezone, listener, cancel
	d.done = make(chan error, 1)
	d.server = &http.Server{
		Handler:           http.HandlerFunc(d.serve),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    1 << 20,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	served := listener
	if d.tls != nil {
		served = tls.NewListener(listener, d.tls)
	}
	go func() {
		defer close(d.done)
		d.done <- d.server.Serve(served)
	}()
	d.log.Info("clickhouse endpoint is listening", "addr", d.Addr())
	return nil
}

// Addr is the address it listens on, once started.
func (d *ClickHouse) Addr() string {
	if d.listener == nil {
		return d.addr
	}
	return d.listener.Addr().String()
}

// Stop lets the statements that run end, until ctx does, then cancels them.
// It may be called again.
func (d *ClickHouse) Stop(ctx context.Context) error {
	if d.server == nil {
		return nil
	}
	err := d.server.Shutdown(ctx)
	d.cancel()
	if err != nil {
		// The handlers hold connections of the engine, which must not close
		// before them; cancelled statements end within milliseconds.
		drain, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer stop()
		err = errors.Join(err, d.server.Shutdown(drain))
	}
	if served, first := <-d.done; first && !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("stop ClickHouse endpoint: %w", err)
	}
	return nil
}

func (d *ClickHouse) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-ClickHouse-Server-Display-Name", "lethe-embedded")
	h.Set("X-ClickHouse-Timezone", d.timezone)
	switch {
	case r.URL.Path == "/ping", r.URL.Path == "/replicas_status":
		io.WriteString(w, "Ok.\n")
		return
	case r.URL.Path != "/" && r.URL.Path != "":
		http.Error(w, "There is no handle "+r.URL.EscapedPath(), http.StatusNotFound)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost:
		http.Error(w, "Only GET, HEAD and POST are served", http.StatusNotImplemented)
		return
	case r.Method != http.MethodPost && r.URL.RawQuery == "":
		io.WriteString(w, "Ok.\n")
		return
	case !d.authorized(r):
		sendException(w, makeException(codeAuthentication, "AUTHENTICATION_FAILED", "Authentication failed: password is incorrect, or there is no user with such name"))
		return
	}
	q, err := readRequest(r)
	if err != nil {
		sendException(w, asException(err))
		return
	}
	h.Set("X-ClickHouse-Query-Id", q.id)
	d.answer(w, r, q)
}

// answer runs the request's statement.
func (d *ClickHouse) answer(w http.ResponseWriter, r *http.Request, q *request) {
	body, release, err := decodeBody(r.Header.Get("Content-Encoding"), r.Body)
	if err != nil {
		sendException(w, asException(err))
		return
	}
	defer release()
	if q.framedBody {
		frames := newFrameReader(body)
		defer frames.close()
		body = frames
	}
	t, err := readTask(q.query, body)
	if err != nil {
		sendException(w, asException(err))
		return
	}
	c, err := d.engine.connect(r.Context())
	if err != nil {
		sendException(w, makeException(202, "TOO_MANY_SIMULTANEOUS_QUERIES", err.Error()))
		return
	}
	defer c.close()
	mark := q.id + " " + newQueryID()
	for _, statement := range q.setup(r.Method, mark) {
		if err := c.exec(statement); err != nil {
			sendException(w, asException(err))
			return
		}
	}
	if t.format == "" {
		t.format = q.format
	}
	a := newAnswer(w, q, t.format)
	done, err := d.run(r.Context(), c, t, q, mark, a)
	if err == nil {
		err = a.finish(done)
	}
	if err != nil {
		// A client that is still sending would otherwise see its connection break
		// before it sees the error.
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<30))
		a.fail(err)
	}
}
