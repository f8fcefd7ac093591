package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// calm is a stack without a storm: the embedded broker and engine, an ingester
// and the query service in this process, and the journal of what was published.
type calm struct {
	t *testing.T
	*stack
	g generator
}

func newCalm(t *testing.T) *calm {
	t.Helper()
	dsn := embeddedtest.ClickHouse(t)
	var made []embedded.Topic
	for _, name := range append(topics[:], deadTopic) {
		made = append(made, embedded.Topic{Name: name, Partitions: partitions, Configs: topicSettings})
	}
	kafka := embeddedtest.Broker(t, t.TempDir(), "127.0.0.1:0", made...)
	api, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	c := &calm{
		t: t, g: generator{seed: 5, begin: time.Now().UTC().Truncate(time.Millisecond)},
		stack: &stack{dir: t.TempDir(), world: world{broker: kafka.Addr(), cluster: kafka.ClusterID(), dsn: dsn, api: "http://" + api}},
	}
	c.publish()
	environ, err := c.settings()
	if err != nil {
		t.Fatal(err)
	}
	environ = append(environ, "POLICY_FILE="+filepath.Join("../..", policyFile), "KAFKA_TOPIC_BUDGET=off", "HTTP_ADDR="+api, "METRICS_ADDR=127.0.0.1:0")
	c.serve(environ)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for lag := int64(-1); lag != 0; {
		if pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
			t.Fatal("the events are not accounted for after three minutes")
		}
		if _, lag, err = c.world.lag(ctx); err != nil {
			lag = -1
		}
	}
	return c
}

// publish publishes two thousand events. Some are acknowledged only the second
// time although they came, some are never acknowledged, of which some came.
func (c *calm) publish() {
	c.t.Helper()
	p, err := newPublisher(c.world.broker, c.journal(), c.g)
	if err != nil {
		c.t.Fatal(err)
	}
	defer p.client.Close()
	send, lost := p.send, errors.New("no answer")
	for try := 0; p.next < 2000; try++ {
		p.send = func(ctx context.Context, m ...publish.Message) error {
			if try%7 == 3 {
				return lost
			}
			err := send(ctx, m...)
			if err == nil && try%7 == 5 {
				err = lost
			}
			return err
		}
		if err := p.step(50); err != nil && !errors.Is(err, lost) {
			c.t.Fatal(err)
		}
	}
}

func (c *calm) serve(environ []string) {
	c.t.Helper()
	in, err := config.LoadIngest(environ)
	if err != nil {
		c.t.Fatal(err)
	}
	q, err := config.LoadQuery(environ)
	if err != nil {
		c.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	d, err := daemon.New(daemon.Options{Log: log, StopTimeout: time.Minute, Parts: append(service.QueryParts, service.IngestParts...)})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- d.Run(ctx, func(ctx context.Context) error {
			return errors.Join(service.Ingest(ctx, d, in, log), service.Query(ctx, d, q, log))
		})
	}()
	c.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			c.t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
}

// sql runs a statement.
func (c *calm) sql(format string, args ...any) {
	c.t.Helper()
	base, database, _ := strings.Cut(strings.TrimPrefix(c.world.dsn, "http://"), "/")
	text := fmt.Sprintf(format, args...)
	resp, err := http.Post("http://"+base+"/?"+url.Values{"database": {database}}.Encode(), "text/plain", strings.NewReader(text))
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %s", text, body)
	}
}

// check reads everything and returns the findings in order.
func (c *calm) check() (tally, []string) {
	c.t.Helper()
	a, err := readJournal(c.journal())
	if err != nil {
		c.t.Fatal(err)
	}
	e, err := c.world.gather(c.t.Context(), c.token, c.g, a)
	if err != nil {
		c.t.Fatal(err)
	}
	t, findings := e.check()
	var list []string
	for _, f := range findings {
		list = append(list, f.String())
	}
	slices.Sort(list)
	return t, list
}

// stored returns a number of an event of request_events that was stored.
func (c *calm) stored(from int64) int64 {
	a, err := readJournal(c.journal())
	if err != nil {
		c.t.Fatal(err)
	}
	acked := members(a.acked, a.next())
	for n := from; ; n++ {
		if e := c.g.event(n); acked[n] && e.outcome == ledger.Stored && topics[e.kind] == "lethe.request" {
			return n
		}
	}
}

// TestCheckerOnTheRealEngine shows that the checker passes what is right, and
// what it says when a row is taken away, doubled, changed or invented.
func TestCheckerOnTheRealEngine(t *testing.T) {
	c := newCalm(t)
	sum, findings := c.check()
	if len(findings) > 0 {
		t.Fatalf("findings where nothing is wrong: %q", findings)
	}
	if sum.stored < 1500 || sum.dead < 50 || sum.expired < 10 || sum.letters < sum.dead || sum.again == 0 || sum.unknown == 0 || sum.acked+sum.unknown > sum.sent {
		t.Errorf("the clean run is too clean to prove anything: %+v", sum)
	}

	lost, doubled, altered := c.stored(100), c.stored(400), c.stored(700)
	const row = "INSERT INTO request_events (* EXCEPT (%[1]s), %[1]s) SELECT * EXCEPT (%[1]s), %[2]s FROM request_events WHERE id = '%[3]s' LIMIT 1"
	var want []string
	for _, b := range []struct {
		name, statement, finding string
	}{
		{"one lost", fmt.Sprintf("DELETE FROM request_events WHERE id = '%s'", idOf(lost)), "lost: " + idOf(lost)},
		{"one doubled", fmt.Sprintf(row, "occurred_at", "addMilliseconds(occurred_at, 1)", idOf(doubled)), "doubled: " + idOf(doubled)},
		{"one never sent", fmt.Sprintf(row, "id", "'storm-999999'", idOf(doubled)), "stored but never sent: storm-999999"},
		{"one of another source", fmt.Sprintf(row, "source", "'/elsewhere'", idOf(altered)), "stored but never sent: " + idOf(altered)},
	} {
		c.sql("%s", b.statement)
		want = append(want, b.finding)
		if b.name == "one doubled" { // the second one has another time
			want = append(want, "stored but not as it was sent: "+idOf(doubled))
		}
		slices.Sort(want)
		if _, got := c.check(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", b.name, got, want)
		}
	}
}
