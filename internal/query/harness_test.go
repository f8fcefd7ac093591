package query

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/redact"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
	"github.com/lethe-audit/lethe/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the instant the tests begin; rows lie around it, so that the engine's
// own clock removes none.
var now = time.Now().UTC().Truncate(time.Second)

// desk is a server under test with everything it needs.
type desk struct {
	*Server
	t        *testing.T
	url      string
	store    *store.Store // nil without an engine
	dsn      string
	file     string // the policy's; "": the sample
	policy   *policy.Policy
	keys     *redact.Keys
	recorder *recorder
	log      *buffer
	registry *prometheus.Registry
	tokens   map[string]string // name → token
	spec     *openapi3.T
	client   *http.Client
	offset   int64
}

// recorder is an auditor that keeps what it is given, or fails.
type recorder struct {
	mu     sync.Mutex
	events [][]byte
	keys   []string
	fail   func(n int) error // n: records before this one
}

func (r *recorder) Record(_ context.Context, organization string, events ...[]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(len(r.events)); err != nil {
			return err
		}
	}
	r.events = append(r.events, events...)
	r.keys = append(r.keys, organization)
	return nil
}

// record is what a consultation record says.
type record struct {
	Source string
	Type   string
	Data   struct {
		Action   string            `json:"event.action"`
		Outcome  string            `json:"event.outcome"`
		Actor    string            `json:"actor.type"`
		Reason   string            `json:"event.reason"`
		User     string            `json:"user.id"`
		Category string            `json:"data.category"`
		Org      string            `json:"organization.id"`
		People   []string          `json:"target.owner.id"`
		Metadata map[string]string `json:"metadata"`
	}
}

// take returns the records since the last call.
func (r *recorder) take(t *testing.T) []record {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]record, len(r.events))
	for i, b := range r.events {
		if err := json.Unmarshal(b, &out[i]); err != nil {
			t.Fatal(err)
		}
	}
	r.events = nil
	return out
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// options are what a desk's server is made of, without a database.
func (d *desk) options(t *testing.T) Options {
	t.Helper()
	p, err := policy.Load(cmp.Or(d.file, "testdata/policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := redact.ParseKeys("k2=" + strings.Repeat("ab", 32) + ",k1=" + strings.Repeat("cd", 32))
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	file.WriteString("tokens:\n")
	d.tokens = map[string]string{}
	for _, role := range allRoles {
		for _, organization := range []string{"", "org_1"} {
			name := string(role)
			if organization != "" {
				name += "-" + organization
			}
			token, sum := NewToken()
			d.tokens[name] = token
			fmt.Fprintf(&file, "  - {name: %s, role: %s, organization: %q, sha256: %q}\n", name, role, organization, sum)
		}
	}
	tokens, err := ParseTokens([]byte(file.String()))
	if err != nil {
		t.Fatal(err)
	}
	d.t, d.policy, d.keys = t, p, keys
	d.recorder, d.log, d.registry = &recorder{}, &buffer{}, prometheus.NewRegistry()
	return Options{
		Rows: &shelf{}, Facts: &shelf{}, Book: &shelf{}, Requests: &shelf{},
		Audit: d.recorder, Prover: &notary{}, Complete: func() bool { return true }, Policy: p, Keys: keys, Tokens: tokens, Secret: bytes.Repeat([]byte{7}, 32), OpenAPI: schemas.OpenAPI,
		TopicAge: 7 * 24 * time.Hour, Log: slog.New(slog.NewJSONHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: d.registry, Addr: "127.0.0.1:0", StopTimeout: 5 * time.Second, Now: func() time.Time { return now },
	}
}

// open returns a desk on a fresh database of the real engine.
func open(t *testing.T, change func(*Options)) *desk {
	t.Helper()
	return openUnder(t, "", change)
}

// openUnder is open with another policy file.
func openUnder(t *testing.T, file string, change func(*Options)) *desk {
	t.Helper()
	d := &desk{file: file}
	o := d.options(t)
	d.dsn = embeddedtest.ClickHouse(t)
	if err := migrate.Apply(t.Context(), migrate.Options{DSN: d.dsn, Policy: d.policy}); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.store, err = store.Open(t.Context(), store.Options{DSN: d.dsn}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.store.Close(); err != nil {
			t.Error(err)
		}
	})
	o.Rows, o.Facts, o.Requests = d.store, d.store, d.store
	o.Book = retention.NewBook(promised{d.store, d.policy}, d.policy, d.keys.Fingerprints)
	if change != nil {
		change(&o)
	}
	d.start(o)
	return d
}

// promised gives retention the facts of the database with the policy's promises.
type promised struct {
	*store.Store
	policy *policy.Policy
}

func (p promised) Promises(context.Context) ([]policy.StoredClass, error) {
	return p.policy.Stored(), nil
}

// start makes the server and serves it until the test ends.
func (d *desk) start(o Options) {
	d.t.Helper()
	var err error
	if d.Server, err = New(o); err != nil {
		d.t.Fatal(err)
	}
	if err := d.Listen(); err != nil {
		d.t.Fatal(err)
	}
	d.url = "http://" + d.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	d.client = &http.Client{Transport: &http.Transport{}}
	d.t.Cleanup(func() {
		d.client.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			d.t.Error(err)
		}
	})
	if d.spec, err = openapi3.NewLoader().LoadFromData(schemas.OpenAPI); err != nil {
		d.t.Fatal(err)
	}
}

// insert stores rows, classified by the policy as ingest would.
func (d *desk) insert(rows ...*event.Row) {
	d.t.Helper()
	b := d.store.NewBatch()
	for _, r := range rows {
		e := event.Event{Kind: r.Kind, Time: r.OccurredAt}
		e.Set(event.EventAction, r.Text[event.TAction])
		e.Set(event.UserID, r.Text[event.TUserID])
		e.Set(event.PlanTier, r.Text[event.TPlanTier])
		e.Set(event.DataCategory, r.Text[event.TDataCategory])
		e.Set(event.OrganizationID, r.Text[event.TOrganization])
		decision, err := d.policy.Decide(&e, r.ReceivedAt)
		if err != nil {
			d.t.Fatal(err)
		}
		r.Retention, r.Bucket, r.RetainedFrom, r.PolicyVersion = decision.Retention, decision.Bucket, decision.RetainedFrom, d.policy.Version
		d.offset++
		r.Topic, r.Offset = "lethe."+r.Kind.String(), d.offset
		b.Add(r)
	}
	if err := d.store.Insert(context.Background(), b, strconv.FormatUint(rand.Uint64(), 36)); err != nil {
		d.t.Fatal(err)
	}
}

// row returns a row of a user in an organization, ago before now.
func row(k event.Kind, id, user, organization string, ago time.Duration) *event.Row {
	r := new(event.Row)
	r.Reset()
	r.Kind, r.ID, r.Source, r.Type = k, id, "/svc/api", "com.example.v1"
	r.OccurredAt = now.Add(-ago)
	r.ReceivedAt = r.OccurredAt.Add(time.Second)
	r.RetainedFrom = r.OccurredAt
	r.Text[event.TUserID], r.Text[event.TOrganization] = user, organization
	r.SubjectKeys = []string{"user:" + user}
	switch k {
	case event.Request:
		r.Text[event.TMethod], r.Number[event.NStatus], r.Text[event.TPlanTier] = "GET", 200, "pro"
	default:
		r.Text[event.TAction], r.Text[event.TOutcome] = "document.read", "success"
	}
	return r
}

// counter returns the value of a counter with these labels, name, value pairs.
func (d *desk) counter(name string, labels ...string) float64 {
	d.t.Helper()
	families, err := d.registry.Gather()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			for i := 0; i+1 < len(labels); i += 2 {
				ok := false
				for _, l := range m.GetLabel() {
					ok = ok || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !ok {
					continue metrics
				}
			}
			return m.GetCounter().GetValue()
		}
	}
	return 0
}
