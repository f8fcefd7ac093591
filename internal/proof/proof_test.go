package proof

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the instant of the proofs; nothing that the tests store has expired by the
// engine's own clock unless they say so.
var now = time.Now().UTC().Truncate(time.Second)

const day24 = 24 * time.Hour

// review is the day by which the operator's values are to be reviewed, whatever the files
// say: theirs will be over one day.
var review = now.Truncate(day24).AddDate(0, 1, 0)

// bench is a policy, a database that has its tables, and a clock.
type bench struct {
	t      *testing.T
	dsn    string
	policy *policy.Policy
	store  *store.Store
	now    time.Time
	topics []Topic
	offset int64
}

func newBench(t *testing.T, name string) *bench {
	t.Helper()
	p, err := policy.Load("../../schemas/policies/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return newBenchUnder(t, p)
}

// ofMembers is an example policy in which all that hangs on an account hangs on a member.
func ofMembers(t *testing.T) *policy.Policy {
	t.Helper()
	text, err := os.ReadFile("../../schemas/policies/bstrapr.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse("bstrapr", bytes.ReplaceAll(text, []byte("from: account.deleted, key: user"), []byte("from: member.removed, key: member")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newBenchUnder(t *testing.T, p *policy.Policy) *bench {
	t.Helper()
	for i := range p.Operator {
		p.Operator[i].Review = review
	}
	b := &bench{t: t, dsn: embeddedtest.ClickHouse(t), policy: p, now: now}
	if err := migrate.Apply(t.Context(), migrate.Options{DSN: b.dsn, Policy: p}); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.store, err = store.Open(t.Context(), store.Options{DSN: b.dsn}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// sql runs a statement past every room, as a person with a client would.
func (b *bench) sql(statement string) string {
	b.t.Helper()
	u, err := url.Parse(b.dsn)
	if err != nil {
		b.t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: transport}).Post("http://"+u.Host+"/?database="+strings.Trim(u.Path, "/"), "text/plain", strings.NewReader(statement))
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		b.t.Fatalf("%s: %v %s", statement, err, text)
	}
	return strings.TrimSpace(string(text))
}

// moveColumns are those that the tests write into retention_moves.
const moveColumns = "table, retention_class, bucket, day, src_topic, src_partition, src_offset, digest, from_override, to_override, cause, sweep, planned_at"

// published is an event that came ago before now.
type published struct {
	kind  event.Kind
	ago   time.Duration
	attrs map[event.Attr]string
}

func request(ago time.Duration, tier string) published {
	return published{event.Request, ago, map[event.Attr]string{event.HTTPMethod: "GET", event.PlanTier: tier}}
}

func audit(ago time.Duration, action string, more ...string) published {
	p := published{event.Audit, ago, map[event.Attr]string{event.EventAction: action, event.EventOutcome: "success"}}
	for i := 0; i+1 < len(more); i += 2 {
		a, ok := event.Lookup(event.Audit, more[i])
		if !ok {
			panic(more[i])
		}
		p.attrs[a] = more[i+1]
	}
	return p
}

// insert stores what the ingester would: rows and the ledger's entry of them. An
// entry that came long ago has none of the rows left that have expired since.
func (b *bench) insert(all ...published) {
	b.t.Helper()
	batch := b.store.NewBatch()
	var entry ledger.Builder
	entry.Reset(ledger.Partition{Cluster: "c", Topic: "lethe.any"})
	for _, p := range all {
		ev := &event.Event{Kind: p.kind, Time: b.now.Add(-p.ago)}
		row := new(event.Row)
		row.Reset()
		row.Kind, row.Source, row.Type = p.kind, "/svc", "t"
		row.OccurredAt, row.ReceivedAt = ev.Time, ev.Time.Add(time.Second)
		for a, v := range p.attrs {
			ev.Set(a, v)
			for i, f := range event.Texts {
				if f.From == a {
					row.Text[i] = v
				}
			}
		}
		d, err := b.policy.Decide(ev, row.ReceivedAt)
		if err != nil {
			b.t.Fatal(err)
		}
		row.ID, row.Topic, row.Offset = "e-"+strconv.FormatInt(b.offset, 10), "lethe.any", b.offset
		row.Retention, row.Bucket, row.RetainedFrom, row.PolicyVersion = d.Retention, d.Bucket, d.RetainedFrom, b.policy.Version
		if err := entry.Add(b.offset, b.offset, ledger.Stored); err != nil {
			b.t.Fatal(err)
		}
		b.offset++
		entry.Count(ledger.Cell{Table: p.kind.Table(), Retention: d.Retention, Day: int32(d.RetainedFrom.Unix() / 86400), Rows: 1,
			Digest: ledger.Digest(row.Source, row.ID, row.Offset)})
		if d.ExpiresAt.After(now) { // the engine has removed the others long ago
			batch.Add(row)
		}
	}
	if err := b.store.Insert(b.t.Context(), batch, strconv.FormatUint(rand.Uint64(), 36)); err != nil {
		b.t.Fatal(err)
	}
	if err := b.store.WriteLedger(b.t.Context(), []ledger.Entry{entry.Entry(0, b.now, b.policy.Version)}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) options() Options {
	return Options{
		Policy: b.policy, Tables: b.store, Account: b.store, Registered: b.registered, MergeTimeout: migrate.MergeTimeout(b.policy.Grace),
		Now: func() time.Time { return b.now }, Topics: func(context.Context) ([]Topic, error) { return b.topics, nil },
	}
}

// prove makes a report.
func (b *bench) prove(ask Ask) *Report {
	b.t.Helper()
	p, err := New(b.options())
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := p.Prove(b.t.Context(), ask)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) registered(ctx context.Context) ([]policy.StoredClass, error) {
	classes, err := b.store.Classes(ctx)
	var all []policy.StoredClass
	for _, c := range classes {
		period := func(s store.Span) policy.Period { return policy.Period{Months: s.Months, Days: s.Days} }
		x := policy.StoredClass{Key: c.Retention, Promised: period(c.Promised), Period: period(c.Period), Anchor: c.Anchor, KeyedBy: c.KeyedBy,
			After: period(c.After), Within: c.Within, AtLeast: period(c.AtLeast), Erasable: c.Erasable, ShortenedBy: c.ShortenedBy}
		x.Promised.Sentinel, x.Period.Sentinel = c.Sentinel, c.Sentinel
		all = append(all, policy.Registered(x))
	}
	return all, err
}

// kinds are the faults of a report, each kind once.
func (r *Report) kinds() []string {
	var list []string
	for _, f := range r.Faults {
		list = append(list, f.Kind)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// bound is what the first sentence that binds a path says of it.
func (r *Report) bound(t *testing.T, path string) Bound {
	t.Helper()
	for _, s := range r.Sentences {
		if i := slices.IndexFunc(s.Binds, func(b Bound) bool { return b.Path == path }); i >= 0 {
			return s.Binds[i]
		}
	}
	t.Fatalf("no sentence binds %s", path)
	return Bound{}
}

// verdict is that on the sentence that binds a path.
func (r *Report) verdict(t *testing.T, path string) *Sentence {
	t.Helper()
	for i := range r.Sentences {
		if slices.ContainsFunc(r.Sentences[i].Binds, func(b Bound) bool { return b.Path == path || strings.HasPrefix(b.Path, path+".") }) {
			return &r.Sentences[i]
		}
	}
	t.Fatalf("no sentence binds %s", path)
	return nil
}

func (r *Report) text(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAllPoliciesAreGreenWhenNew(t *testing.T) {
	for _, name := range []string{"bstrapr", "infratrace", "daestro", "abstra", "itskode"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, name)
			r := b.prove(Ask{})
			if r.Result != green || r.Verdicts[Enforced] > 0 || r.Verdicts[Silent] == 0 || r.Verified.Ran {
				t.Errorf("got %v, %v\n%s", r.Verdicts, r.Faults, r.text(t))
			}
			if len(r.Sentences) != len(b.policy.Sentences) || len(r.Operator) != len(b.policy.Operator) {
				t.Errorf("got %d sentences and %d values", len(r.Sentences), len(r.Operator))
			}
			for _, x := range r.Tables {
				if strings.HasPrefix(x.Holds, "unknown") || x.Says != "as it must be" {
					t.Errorf("%s: a table of our own without a line in owns, or %s", x.Name, x.Says)
				}
			}
		})
	}
}
