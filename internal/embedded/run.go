package embedded

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"
)

// run runs a statement on a connection that has been set up, and kills it when ctx
// ends before.
func (d *ClickHouse) run(ctx context.Context, c *conn, t task, q *request, mark string, a *answer) (summary, error) {
	defer d.engine.killOn(ctx, mark)()
	switch {
	case t.insert:
		return runInsert(c, t, q)
	case isHello(t.text, q):
		return runHello(c, a)
	case t.isStreamed(t.text, q.settings):
		done, err := runStream(c, t, q, a)
		if errNotStreamable(err) {
			return runWhole(c, t, q, a)
		}
		return done, err
	}
	return runWhole(c, t, q, a)
}

// runStream answers a SELECT block by block.
func runStream(c *conn, t task, q *request, a *answer) (summary, error) {
	s, err := c.stream(t.text, q.format, q.params)
	if err != nil {
		return summary{}, err
	}
	defer s.close()
	var total summary
	for {
		part, err := s.next()
		if err != nil {
			return total, err
		}
		done := part.summary()
		total.readRows += done.readRows
		total.readBytes += done.readBytes
		block := part.bytes()
		_, err = a.Write(block)
		end := len(block) == 0
		part.free()
		if err != nil {
			return total, err
		}
		if end {
			return total, nil
		}
	}
}

// runWhole answers any other statement, and formats that cannot be cut.
func runWhole(c *conn, t task, q *request, a *answer) (summary, error) {
	r, err := c.query(t.text, q.format, q.params)
	if err != nil {
		return summary{}, err
	}
	defer r.free()
	if a.held == nil {
		// The work is done, so its counts can still go into the headers.
		if err := a.start(r.summary()); err != nil {
			return summary{}, err
		}
	}
	_, err = a.Write(r.bytes())
	return r.summary(), err
}

// runInsert hands the body over piece by piece. A body that ends too early
// commits nothing that was not committed before: the last block is dropped.
func runInsert(c *conn, t task, q *request) (summary, error) {
	in, err := c.insert(t.head, t.format, q.params)
	if err != nil {
		return summary{}, err
	}
	defer in.close()
	buf := make([]byte, 256<<10)
	for {
		n, err := t.rest.Read(buf)
		if _, failed := in.Write(buf[:n]); failed != nil {
			break // finish has the reason
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			in.abort()
			var e *exception
			if !errors.As(err, &e) {
				err = makeException(codeCannotRead, "CANNOT_READ_ALL_DATA", "The body ended early: "+err.Error())
			}
			return summary{}, err
		}
	}
	return in.finish()
}

// killOn kills the statement with the given log_comment when ctx ends. The
// function it returns is called when the statement has ended.
func (e *Engine) killOn(ctx context.Context, mark string) (ended func()) {
	over, killed := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		// A statement can be killed only once the engine knows of it, which may
		// be later than this.
		for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
			e.kill(mark)
			select {
			case <-over:
				return
			case <-time.After(wait):
			}
		}
	})
	return func() {
		close(over)
		if !stop() {
			<-killed
		}
	}
}

func (e *Engine) kill(mark string) {
	c, err := e.connectMore()
	if err != nil {
		return // tried again while the statement runs
	}
	defer c.close()
	r, err := c.query("KILL QUERY WHERE endsWith(Settings['log_comment'], {mark:String}) ASYNC", "Null", []param{{"mark", mark}})
	if err == nil {
		r.free()
	}
}

// scalar is the one value a statement answers with.
func (e *Engine) scalar(ctx context.Context, text string) (string, error) {
	c, err := e.connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.close()
	r, err := c.query(text, "TabSeparatedRaw", nil)
	if err != nil {
		return "", err
	}
	defer r.free()
	return strings.TrimSuffix(string(r.bytes()), "\n"), nil
}
