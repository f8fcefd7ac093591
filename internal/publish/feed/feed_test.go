package feed

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/publish"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var topics = [event.NumKinds]string{"lethe.request", "lethe.audit", "lethe.security"}

// place is a broker with a publisher, and a folder for files.
type place struct {
	t      *testing.T
	broker string
	p      *publish.Publisher
	dialer *kafka.Dialer
	dir    string
	now    time.Time
}

func newPlace(t *testing.T) *place {
	t.Helper()
	var list []embedded.Topic
	for _, name := range topics {
		list = append(list, embedded.Topic{Name: name, Partitions: 1})
	}
	broker := embeddedtest.Kafka(t, list...)
	transport, dialer, err := publish.Connect(config.Kafka{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := publish.New(publish.Options{Brokers: []string{broker}, Transport: transport, Batch: 2000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close publisher: %v", err)
		}
	})
	return &place{t, broker, p, dialer, t.TempDir(), time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}
}

func (p *place) file(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *place) options() Options {
	return Options{
		Publisher: p.p, Topics: topics, Source: "/test", Service: "web", StatePath: filepath.Join(p.dir, "state", "run.json"),
		Patience: 10 * time.Second, Now: func() time.Time { return p.now },
	}
}

func (p *place) run(opts Options, inputs ...string) (Progress, error) {
	p.t.Helper()
	f, err := New(opts)
	if err != nil {
		p.t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	return f.Run(ctx, inputs...)
}

func (p *place) mustRun(opts Options, inputs ...string) Progress {
	p.t.Helper()
	at, err := p.run(opts, inputs...)
	if err != nil {
		p.t.Fatalf("Run: %v", err)
	}
	return at
}

// events reads back everything in the kind's topic, decoded as the ingester does.
func (p *place) events(kind event.Kind) []event.Event {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	conn, err := p.dialer.DialLeader(ctx, "tcp", p.broker, topics[kind], 0)
	if err != nil {
		p.t.Fatal(err)
	}
	end, err := conn.ReadLastOffset()
	if err := errors.Join(err, conn.Close()); err != nil {
		p.t.Fatal(err)
	}
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{p.broker}, Dialer: p.dialer, Topic: topics[kind], MaxBytes: 8 << 20, MaxWait: 50 * time.Millisecond})
	defer func() { _ = r.Close() }()
	d := codec.NewDecoder()
	list := make([]event.Event, end)
	for i := range list {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			p.t.Fatalf("read message %d of %d: %v", i, end, err)
		}
		if err := d.Decode(kind, m.Value, nil, &list[i]); err != nil {
			p.t.Fatalf("message %d is no event: %v", i, err)
		}
		if got, want := string(m.Key), list[i].Text[event.OrganizationID]; got != want {
			p.t.Errorf("message %d: got key %q, want %q", i, got, want)
		}
	}
	return list
}

// identities returns what tells events apart, once each, in order.
func identities(list []event.Event) []string {
	var ids []string
	for _, e := range list {
		ids = append(ids, e.Source+" "+e.ID+" "+e.Time.Format(time.RFC3339Nano))
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// accessLog makes n lines; every tenth is equal to the one before.
func accessLog(n int) string {
	var b strings.Builder
	for i := range n {
		if i%10 == 9 {
			i--
		}
		at := time.Date(2020, 1, 1, 0, 0, i/3, 0, time.UTC)
		fmt.Fprintf(&b, "192.0.2.%d - - [%s] \"GET /page/%d?secret=1 HTTP/1.1\" 200 %d \"-\" \"curl/8\"\n", i%250, at.Format("02/Jan/2006:15:04:05 -0700"), i, i)
	}
	return b.String()
}

func TestAccessLogBecomesEvents(t *testing.T) {
	p := newPlace(t)
	file := p.file("access.log", strings.Join([]string{
		`2001:db8::7 - u_42 [17/May/2015:10:05:03 +0200] "POST /a\"b?x=1 HTTP/2.0" 201 17 "-" "caf\xc3\xa9 \xff"`,
		`192.0.2.1 - - [17/May/2015:10:05:04 +0200] "-" 408 -`,
		`no log line of jo@example.com`,
		``,
		`192.0.2.1 - - [17/May/1999:10:05:04 +0200] "GET / HTTP/1.1" 200 1`,
		`192.0.2.1 - ` + strings.Repeat("u", 300) + ` [17/May/2015:10:05:04 +0200] "GET / HTTP/1.1" 200 1`,
		`192.0.2.1 - - [17/May/2015:10:05:04 +0200] "GET /` + strings.Repeat("é", 5000) + ` HTTP/1.1" 200 1`,
		strings.Repeat("long", 300_000),
		`192.0.2.9 - - [17/May/2015:10:05:05 +0200] "GET /last HTTP/1.1" 200 1`, // no line break at the end
	}, "\n"))
	var refused []string
	opts := p.options()
	opts.Refused = func(r Refusal) {
		refused = append(refused, fmt.Sprintf("%s:%d %s", filepath.Base(r.Input), r.Line, r.Reason))
	}
	at := p.mustRun(opts, file)
	if want := (Counts{Published: 4, Refused: 4, Blank: 1, Shortened: 1}); at.Counts != want {
		t.Errorf("got %+v, want %+v", at.Counts, want)
	}
	if want := []string{
		"access.log:3 no user before the time",
		"access.log:5 the time is before 2000",
		"access.log:6 the user or the client is longer than an event may hold",
		"access.log:8 longer than an event may be",
	}; !slices.Equal(refused, want) {
		t.Errorf("got refusals %q, want %q", refused, want)
	}
	got := p.events(event.Request)
	if len(got) != 4 {
		t.Fatalf("got %d events, want 4", len(got))
	}
	e := got[0]
	for a, want := range map[event.Attr]string{
		event.HTTPMethod: "POST", event.URLPath: `/a"b`, event.ProtocolVersion: "2", event.ClientAddress: "2001:db8::7",
		event.UserID: "u_42", event.UserAgent: "café \ufffd", event.ServiceName: "web",
	} {
		if e.Text[a] != want {
			t.Errorf("%s: got %q, want %q", event.Attributes[a].Name, e.Text[a], want)
		}
	}
	if status, _ := e.Num(event.HTTPStatus); status != 201 {
		t.Errorf("status: got %v, want 201", status)
	}
	if size, _ := e.Num(event.HTTPResponseSize); size != 17 {
		t.Errorf("size: got %v, want 17", size)
	}
	if want := time.Date(2015, 5, 17, 8, 5, 3, 0, time.UTC); !e.Time.Equal(want) || e.Source != "/test" || e.Type != eventType {
		t.Errorf("got %s %s %s", e.Time, e.Source, e.Type)
	}
	if method := got[1].Text[event.HTTPMethod]; method != "_OTHER" {
		t.Errorf("a timeout: got method %q, want _OTHER", method)
	}
	if length := len(got[2].Text[event.URLPath]); length > 8192 || length < 8190 {
		t.Errorf("a long path: got %d bytes, want it cut near 8192", length)
	}
}

func TestARepeatedRunRepeatsNoEvent(t *testing.T) {
	const lines = 200
	p := newPlace(t)
	text := accessLog(lines)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	grown := strings.Split(text, "\n")
	p.mustRun(p.options(), p.file("access.log", strings.Join(grown[:50], "\n")+"\n"))
	for _, file := range []string{
		p.file("access.log", text), p.file("renamed.log.1", text), p.file("access.log.gz", zipped.String()), p.file("dos.log", strings.ReplaceAll(text, "\n", "\r\n")),
	} {
		if at := p.mustRun(p.options(), file); at.Counts.Published != lines {
			t.Errorf("%s: got %d events, want %d", filepath.Base(file), at.Counts.Published, lines)
		}
	}
	opts := p.options()
	opts.Stdin = strings.NewReader(text)
	p.mustRun(opts, Stdin)
	got := p.events(event.Request)
	if len(got) != 5*lines+50 {
		t.Errorf("got %d messages, want %d", len(got), 5*lines+50)
	}
	if ids := identities(got); len(ids) != lines {
		t.Errorf("got %d different events, want %d", len(ids), lines)
	}
	// Another server's equal log is other events.
	opts = p.options()
	opts.Source = "/other"
	p.mustRun(opts, p.file("access.log", text))
	if ids := identities(p.events(event.Request)); len(ids) != 2*lines {
		t.Errorf("with another source: got %d different events, want %d", len(ids), 2*lines)
	}
}

func TestTheIDSaysNothingAboutTheClient(t *testing.T) {
	id := func(client string) identity {
		c := newConverter(Options{Topics: topics}, AccessLog, 0)
		in := &input{number: 1, line: []byte(client + ` - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1`)}
		if err := c.parse(in); err != nil {
			t.Fatal(err)
		}
		c.identify(in)
		return c.last
	}
	if id("192.0.2.1") != id("192.0.2.9") {
		t.Error("the id depends on the address, so it can be found by trying all addresses")
	}
}

func TestCloudEvents(t *testing.T) {
	p := newPlace(t)
	file := p.file("audit.ndjson", strings.Join([]string{
		fmt.Sprintf(auditLine, 1, 1, 1), `{"specversion":"1.0"}`, `canary`, ``, fmt.Sprintf(auditLine, 2, 2, 2),
	}, "\n"))
	opts := p.options()
	if _, err := p.run(opts, file); !errors.Is(err, ErrNoKind) {
		t.Errorf("without a kind: got %v, want %v", err, ErrNoKind)
	}
	opts.Kind, opts.HasKind = event.Audit, true
	var reasons []string
	opts.Refused = func(r Refusal) { reasons = append(reasons, fmt.Sprint(r.Line, " ", r.Reason)) }
	at := p.mustRun(opts, file)
	if want := (Counts{Published: 2, Refused: 2, Blank: 1}); at.Counts != want {
		t.Errorf("got %+v, want %+v", at.Counts, want)
	}
	if want := []string{"2 decode event: missing_attribute: id", "3 decode event: not_json"}; !slices.Equal(reasons, want) {
		t.Errorf("got %q, want %q", reasons, want)
	}
	opts.ShiftTo = "2026-01-31T10:00:00Z"
	p.mustRun(opts, file)
	list := p.events(event.Audit)
	if len(list) != 4 {
		t.Fatalf("got %d events, want 4", len(list))
	}
	shifted := list[3]
	if got, want := shifted.Time, time.Date(2026, 1, 31, 9, 59, 59, 250e6, time.UTC); !got.Equal(want) {
		t.Errorf("shifted: got %s, want %s", got, want)
	}
	if shifted.ID != "2" || shifted.Text[event.OrganizationID] != "org_2" {
		t.Errorf("a shifted event changed: id %q, organization %q", shifted.ID, shifted.Text[event.OrganizationID])
	}
}

func TestAPipeIsPublishedAsItComes(t *testing.T) {
	p := newPlace(t)
	r, w := io.Pipe()
	opts := p.options()
	opts.Stdin, opts.StatePath = r, ""
	acknowledged := make(chan int64, 10)
	opts.Progress = func(at Progress) { acknowledged <- at.Counts.Published }
	done := make(chan error, 1)
	go func() { _, err := p.run(opts, Stdin); done <- err }()
	lines := strings.SplitAfter(accessLog(3), "\n")
	for i := range 3 {
		if _, err := io.WriteString(w, lines[i]); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-acknowledged:
			if want := int64(i + 1); got != want {
				t.Errorf("got %d events, want %d", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a line was held back until the next one")
		}
	}
	if err := errors.Join(w.Close(), <-done); err != nil {
		t.Error(err)
	}
}

func TestTheStateHoldsNoPayload(t *testing.T) {
	p := newPlace(t)
	opts := p.options()
	opts.ShiftTo = "now"
	p.mustRun(opts, p.file("access.log", accessLog(20)))
	state, err := os.ReadFile(opts.StatePath)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"192.0.2", "page", "curl"} {
		if bytes.Contains(state, []byte(text)) {
			t.Errorf("the state file holds %q", text)
		}
	}
	if err := os.WriteFile(opts.StatePath, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.run(opts, p.file("access.log", accessLog(20))); err == nil || !strings.Contains(err.Error(), "not a state file") {
		t.Errorf("a broken state file: got %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Options{Publisher: &publish.Publisher{}, Topics: topics, Source: "/s", Now: time.Now, StatePath: "x"}
	if _, err := New(good); err != nil {
		t.Fatalf("got %v, want nil", err)
	}
	for name, change := range map[string]func(*Options){
		"no publisher":      func(o *Options) { o.Publisher = nil },
		"no clock":          func(o *Options) { o.Now = nil },
		"no source":         func(o *Options) { o.Source = "" },
		"no topic":          func(o *Options) { o.Topics[1] = "" },
		"shift to nowhere":  func(o *Options) { o.ShiftTo = "tomorrow" },
		"resume and forget": func(o *Options) { o.Resume, o.Forget = true, true },
		"resume, no state":  func(o *Options) { o.Resume, o.StatePath = true, "" },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			if _, err := New(o); err == nil {
				t.Error("got no error")
			}
		})
	}
}
