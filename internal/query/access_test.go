package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/retention"
)

func TestConsultationRecords(t *testing.T) {
	d := open(t, nil)
	other := row(event.Audit, "a", "u_2", "org_1", time.Minute)
	other.SubjectKeys = []string{"user:u_2", "device:d_1", "user:u_1"}
	access := row(event.Audit, "consulted", "staff:eve", "", 2*time.Minute)
	access.Text[event.TAction] = accessEvents
	access.Owners = []string{"user:u_7", "user:u_8"}
	access.SubjectKeys = []string{"user:staff:eve", "user:u_7", "user:u_8"}
	d.insert(row(event.Request, "r", "u_1", "org_1", time.Minute), other, access)

	tests := []struct {
		name, as, path string
		headers        []string
		action, route  string
		people         []string
		metadata       string
	}{
		{"events, purpose not stated", "investigator", "/v1/events?organization=org_1", nil, accessEvents, "/v1/events",
			[]string{"device:d_1", "user:u_1", "user:u_2"}, "map[purpose:not_stated role:investigator route:/v1/events rows:2]"},
		{"a person's events", "officer", "/v1/subjects/device:d_1/events", []string{purposeHeader, "complaint"}, accessSubject, pathSubjectEvents,
			[]string{"device:d_1", "user:u_1", "user:u_2"}, "map[purpose:complaint role:officer route:" + pathSubjectEvents + " rows:1]"},
		{"a person without events", "officer", "/v1/subjects/user:nobody/events", nil, accessSubject, pathSubjectEvents,
			[]string{"user:nobody"}, "map[purpose:not_stated role:officer route:" + pathSubjectEvents + " rows:0]"},
		{"records of consultations are recorded once, without those they name", "officer", "/v1/events?action=lethe.access.events", nil,
			accessEvents, "/v1/events", []string{"user:staff:eve"}, "map[purpose:not_stated role:officer route:/v1/events rows:1]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d.get(tt.as, tt.path, tt.headers...).page(t)
			got := d.recorder.take(t)
			if len(got) != 1 {
				t.Fatalf("got %d records, want 1", len(got))
			}
			r := got[0]
			if r.Source != "/lethe/query" || r.Type != tt.action || r.Data.Action != tt.action || r.Data.Outcome != "success" ||
				r.Data.Actor != "staff" || r.Data.User != "staff:"+tt.as || r.Data.Category != "access_record" {
				t.Errorf("got %+v", r)
			}
			if !slices.Equal(r.Data.People, tt.people) {
				t.Errorf("people: got %q, want %q", r.Data.People, tt.people)
			}
			if got := fmt.Sprint(r.Data.Metadata); got != tt.metadata {
				t.Errorf("metadata: got %s, want %s", got, tt.metadata)
			}
		})
	}
	t.Run("nothing personal, no record", func(t *testing.T) {
		for _, path := range []string{"/v1/retention", "/", "/openapi.yaml", "/v1/events?kind=x"} {
			d.get("officer", path)
		}
		d.ask(http.MethodPost, "officer", "/v1/subject-keys", `{"email":"ada@example.com"}`)
		if got := d.recorder.take(t); len(got) != 0 {
			t.Errorf("got %d records, want none", len(got))
		}
	})
	t.Run("a purpose that is not in the list", func(t *testing.T) {
		if a := d.get("officer", "/v1/events", purposeHeader, "curiosity"); a.problem() != "bad_request" {
			t.Errorf("got %s, want bad_request", a.body)
		}
	})
}

func TestNothingIsSentWithoutRecord(t *testing.T) {
	d := open(t, nil)
	d.recorder.fail = func(int) error { return errors.New("no broker answered") }
	d.insert(row(event.Request, "r", "u_secret", "org_1", time.Minute))
	for _, path := range []string{"/v1/events", "/v1/subjects/user:u_secret/events", "/v1/subjects/user:u_secret/export"} {
		a := d.get("officer", path, purposeHeader, "access_request", verifiedHeader, "id_document")
		if a.status != http.StatusServiceUnavailable || a.problem() != "audit_unavailable" {
			t.Errorf("%s: got %d %s, want 503 audit_unavailable", path, a.status, a.body)
		}
		if strings.Contains(string(a.body), "u_secret") || a.header.Get("Content-Disposition") != "" {
			t.Errorf("%s: something was sent: %s", path, a.body)
		}
	}
	if got := d.counter("lethe_query_access_records_total", "outcome", "refused"); got != 3 {
		t.Errorf("refused: got %g, want 3", got)
	}
	if a := d.get("officer", "/v1/retention"); a.status != http.StatusOK {
		t.Errorf("the report depends on the records: got %d %s", a.status, a.body)
	}
}

// silent never acknowledges.
type silent struct{}

func (silent) Record(ctx context.Context, _ string, _ ...[]byte) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestRecordHasTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		o := d.options(t)
		o.Rows, o.Audit = &shelf{rows: []*event.Row{row(event.Request, "r", "u_secret", "org_1", time.Minute)}}, silent{}
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/v1/events", nil)
		r.Header.Set("Authorization", "Bearer "+d.tokens["officer"])
		s.Handler().ServeHTTP(w, r)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("got an answer after %s, want 2s", took)
		}
		if a := (reply{body: w.Body.Bytes()}); w.Code != http.StatusServiceUnavailable || a.problem() != "audit_unavailable" {
			t.Errorf("got %d %s, want 503 audit_unavailable", w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), "u_secret") {
			t.Error("rows were sent")
		}
	})
}

// TestRecordIsAnEvent shows that ingest stores what the service publishes, even
// with more people than an event can name and ids as long as they can be.
func TestRecordIsAnEvent(t *testing.T) {
	d := bare(t, nil)
	var many []string
	for i := range 2*maxPeople + 1 {
		many = append(many, fmt.Sprintf("user:%0256d", i))
	}
	hostile := make([]string, 1500)
	for i := range hostile {
		hostile[i] = "user:" + strings.Repeat("\x01", 250) + fmt.Sprintf("%06d", i)
	}
	tests := []struct {
		name   string
		people []string
		events int
	}{
		{"nobody", nil, 1}, {"one", []string{"user:u"}, 1}, {"many", many, 3}, {"ids that grow when they are escaped", hostile, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := consultation{action: accessEvents, route: pathEvents, purpose: notStated, caller: caller{Name: strings.Repeat("n", 64), Role: Officer}, people: tt.people, extra: count(7)}
			events, err := c.events(now)
			if err != nil {
				t.Fatal(err)
			}
			if len(events) != tt.events {
				t.Errorf("got %d events, want %d", len(events), tt.events)
			}
			var people []string
			for _, b := range events {
				if len(b) >= 1<<20-4096 {
					t.Errorf("an event has %d bytes, too many for a broker", len(b))
				}
				var e event.Event
				if err := codec.NewDecoder().Decode(event.Audit, b, nil, &e); err != nil {
					t.Fatalf("ingest would refuse it: %v", err)
				}
				if e.Unknown != 0 || e.Refused != 0 {
					t.Errorf("ingest would drop %d attributes", e.Unknown+e.Refused)
				}
				decision, err := d.policy.Decide(&e, now)
				if err != nil || decision.Retention != "access_record@2y" {
					t.Errorf("class: got %q, %v; want access_record@2y", decision.Retention, err)
				}
				for _, o := range e.Owners {
					people = append(people, strings.Clone(o))
				}
			}
			if !slices.Equal(people, tt.people) {
				t.Errorf("got %d people, want %d", len(people), len(tt.people))
			}
		})
	}
}

// kafkaAudit publishes as cmd/query does.
type kafkaAudit struct{ p *publish.Publisher }

func (k kafkaAudit) Record(ctx context.Context, organization string, events ...[]byte) error {
	var msgs []publish.Message
	for _, e := range events {
		msgs = append(msgs, publish.Message{Topic: "lethe.audit", Key: organization, Value: e})
	}
	return k.p.Publish(ctx, msgs...)
}

// TestRecordsReachKafka consults through the real engine and a real broker
// protocol: when the answer is there, so is the record.
func TestRecordsReachKafka(t *testing.T) {
	broker := embeddedtest.Kafka(t, embedded.Topic{Name: "lethe.audit", Partitions: 1})
	transport, dialer, err := publish.Connect(config.Kafka{Brokers: []string{broker}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := publish.New(publish.Options{Brokers: []string{broker}, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, func(o *Options) { o.Audit = kafkaAudit{p} })
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	d.insert(row(event.Request, "r", "u_1", "org_1", time.Minute))
	d.get("officer-org_1", "/v1/events").page(t)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := dialer.DialLeader(ctx, "tcp", broker, "lethe.audit", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if last, err := conn.ReadLastOffset(); err != nil || last != 1 {
		t.Fatalf("got %d records, %v; want 1", last, err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	m, err := conn.ReadMessage(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	var e event.Event
	if err := codec.NewDecoder().Decode(event.Audit, m.Value, nil, &e); err != nil {
		t.Fatal(err)
	}
	if e.Action() != accessEvents || !slices.Equal(e.Owners, []string{"user:u_1"}) || string(m.Key) != "org_1" {
		t.Errorf("got %s about %q with key %q", e.Action(), e.Owners, m.Key)
	}

	d.erasing(`{"subjects":["user:u_1"]}`)
	if last, err := conn.ReadLastOffset(); err != nil || last != 2 {
		t.Fatalf("after an erasure: got %d records, %v; want 2", last, err)
	}
	if m, err = conn.ReadMessage(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := codec.NewDecoder().Decode(event.Audit, m.Value, nil, &e); err != nil {
		t.Fatal(err)
	}
	if e.Action() != retention.ErasureRequested || len(e.Owners) != 0 || strings.Contains(string(m.Value), "u_1") {
		t.Errorf("got %s about %q: %s", e.Action(), e.Owners, m.Value)
	}
}
