package embedded

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// answer writes one HTTP answer. Until the first byte is out it can still become
// an error with a status; after that an error ends it as a server does, with the
// exception in the body and the connection cut, so that no client takes a short
// answer for a whole one.
type answer struct {
	w       http.ResponseWriter
	request *request
	format  string
	tag     string
	started bool
	pack    flusher       // between the engine and the client, nil when not packed
	held    *bytes.Buffer // with wait_end_of_query
}

func newAnswer(w http.ResponseWriter, q *request, format string) *answer {
	a := &answer{w: w, request: q, format: format}
	if q.waitForEnd {
		a.held = new(bytes.Buffer)
	}
	return a
}

// Write sends a part of the answer and waits until it is on its way: what is in
// memory is one block.
func (a *answer) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if a.held != nil {
		return a.held.Write(p)
	}
	return a.send(p)
}

func (a *answer) send(p []byte) (int, error) {
	if err := a.start(summary{}); err != nil {
		return 0, err
	}
	out := io.Writer(a.w)
	if a.pack != nil {
		out = a.pack
	}
	return out.Write(p)
}

// start sends the headers, with what the statement did so far.
func (a *answer) start(done summary) error {
	if a.started {
		return nil
	}
	a.started = true
	var tag [8]byte
	rand.Read(tag[:])
	a.tag = hex.EncodeToString(tag[:])
	h := a.w.Header()
	h.Set("Content-Type", contentType(a.format))
	h.Set("X-ClickHouse-Format", a.format)
	h.Set("X-ClickHouse-Exception-Tag", a.tag)
	h.Set("X-ClickHouse-Summary", fmt.Sprintf(
		`{"read_rows":"%d","read_bytes":"%d","written_rows":"%d","written_bytes":"%d"}`,
		done.readRows, done.readBytes, done.writtenRows, done.writtenBytes))
	switch {
	case a.request.framedAnswer:
		a.pack = newFrameWriter(a.request.frameMethod, a.w)
	case a.request.encoding != "":
		pack, err := encodeAnswer(a.request.encoding, a.w)
		if err != nil {
			return err
		}
		h.Set("Content-Encoding", a.request.encoding)
		a.pack = pack
	}
	return nil
}

// finish ends an answer that is whole.
func (a *answer) finish(done summary) error {
	if err := a.start(done); err != nil {
		return err
	}
	if a.held != nil && a.held.Len() > 0 {
		held := a.held
		a.held = nil
		if _, err := a.send(held.Bytes()); err != nil {
			return err
		}
	}
	if a.pack != nil {
		return a.pack.Close()
	}
	return nil
}

// fail ends an answer with an error.
func (a *answer) fail(err error) {
	e := asException(err)
	if !a.started {
		sendException(a.w, e)
		return
	}
	text := e.text + "\n"
	const marker = "__exception__"
	out := io.Writer(a.w)
	if a.request.encoding != "" && !a.request.framedAnswer {
		out = a.pack // the client unpacks all there is; frames it reads one by one
	}
	fmt.Fprintf(out, "\r\n%s\r\n%s\r\n%s%d %s\r\n%s\r\n", marker, a.tag, text, len(text), a.tag, marker)
	if a.pack != nil {
		a.pack.Flush()
	}
	cut(a.w)
}

// cut ends the connection without the end of the body, once what was written is
// out.
func cut(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	control.Flush()
	if connection, _, err := control.Hijack(); err == nil {
		connection.Close()
	}
}

// sendException answers with an error and its status.
func sendException(w http.ResponseWriter, e *exception) {
	h := w.Header()
	for _, name := range []string{"Content-Encoding", "X-ClickHouse-Format", "X-ClickHouse-Summary"} {
		h.Del(name)
	}
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
	if e.code == codeAuthentication {
		h.Set("WWW-Authenticate", `Basic realm="ClickHouse server HTTP API"`)
	}
	w.WriteHeader(e.status())
	io.WriteString(w, e.text+"\n")
}

// contentType is what a server sends for a format.
func contentType(format string) string {
	f := strings.ToLower(format)
	switch {
	case f == "native" || strings.HasPrefix(f, "rowbinary") || f == "parquet" || f == "orc" || strings.HasPrefix(f, "arrow"):
		return "application/octet-stream"
	case f == "json" || f == "jsoncompact" || f == "jsonstrings" || f == "jsoncolumns":
		return "application/json; charset=UTF-8"
	case strings.Contains(f, "eachrow") || f == "jsonlines" || f == "ndjson":
		return "application/x-ndjson; charset=UTF-8"
	case strings.HasPrefix(f, "csv"):
		return "text/csv; charset=UTF-8; header=" + map[bool]string{true: "present", false: "absent"}[strings.Contains(f, "withnames")]
	case strings.HasPrefix(f, "tsv") || strings.HasPrefix(f, "tabseparated"):
		return "text/tab-separated-values; charset=UTF-8"
	case f == "xml":
		return "application/xml; charset=UTF-8"
	}
	return "text/plain; charset=UTF-8"
}
