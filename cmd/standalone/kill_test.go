package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	killEvents = 300_000
	killUsers  = 300
)

// TestKilledIngesterLosesAndDoublesNothing kills the ingester three times with
// SIGKILL while it works through a load, starts it again each time, and then
// reads everything back by every route.
func TestKilledIngesterLosesAndDoublesNothing(t *testing.T) {
	m := newMachine(t)
	m.start([]string{"-only", "kafka,clickhouse"}).awaitReady()
	from := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	publishLoad(t, m.kafka, from, 0, killEvents)

	rows := func() int {
		// Before the first start there is no database.
		return number(t, m.ask("default", "SELECT sum(rows) FROM system.parts WHERE active AND database = 'lethe' AND table = 'request_events'"))
	}
	// Small batches, so that a kill finds one half done.
	small := []string{"BATCH_ROWS=5000", "BATCH_AGE=200ms"}
	for i, share := range []int{10, 35, 60} {
		p := m.start([]string{"-only", "ingest"}, small...)
		until := killEvents * share / 100
		deadline := time.Now().Add(3 * time.Minute)
		for rows() < until {
			if time.Now().After(deadline) {
				t.Fatalf("only %d rows before kill %d", rows(), i+1)
			}
			time.Sleep(5 * time.Millisecond) // the engine has no event to wait for
		}
		p.kill()
		if n := rows(); n >= killEvents {
			t.Fatalf("kill %d came too late: all %d rows are there", i+1, n)
		}
	}
	m.start([]string{"-only", "ingest"}).awaitReady()
	m.awaitComplete()

	if got := m.sql("SELECT uniqExact(source, id, occurred_at) FROM request_events"); got != fmt.Sprint(killEvents) {
		t.Errorf("%s distinct events are stored, want %d", got, killEvents)
	}
	if got := m.sql("SELECT count() FROM dead_letters"); got != "0" {
		t.Errorf("got %s dead letters, want none", got)
	}
	t.Logf("%s rows for %d events", m.sql("SELECT count() FROM request_events"), killEvents)

	m.start([]string{"-only", "query"}).awaitReady()
	window := fmt.Sprintf("kind=request&from=%s&to=%s&limit=1000", from.Format(time.RFC3339), from.Add(time.Hour).Format(time.RFC3339))
	if got := len(m.readAll(t, "/v1/events?"+window)); got != killEvents {
		t.Errorf("/v1/events returns %d distinct events, want %d", got, killEvents)
	}
	const perUser = killEvents / killUsers
	if got := len(m.readAll(t, "/v1/subjects/user:u_7/events?"+window)); got != perUser {
		t.Errorf("/v1/subjects/user:u_7/events returns %d distinct events, want %d", got, perUser)
	}
	lines := 0
	for name, content := range m.export("u_7") {
		if strings.HasPrefix(name, "request") && strings.HasSuffix(name, ".ndjson") {
			lines += strings.Count(string(content), "\n")
		}
	}
	if lines != perUser {
		t.Errorf("the export of user u_7 has %d request events, want %d", lines, perUser)
	}
}

// readAll follows the pages to their end and returns the ids; an id that comes
// twice is an error.
func (m *machine) readAll(t *testing.T, path string) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for cursor := ""; ; {
		var page struct {
			Events []struct{ ID string }
			Next   string `json:"next_cursor"`
		}
		answer := m.get(path + cursor)
		if err := json.Unmarshal(answer, &page); err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			if ids[e.ID] {
				t.Fatalf("%s: an event is returned twice", path)
			}
			ids[e.ID] = true
		}
		if page.Next == "" {
			return ids
		}
		cursor = "&cursor=" + page.Next
	}
}

// publishLoad writes the events first to end-1, one every 10 ms of event time.
func publishLoad(t *testing.T, broker string, from time.Time, first, end int) {
	t.Helper()
	w := &kafka.Writer{
		Addr: kafka.TCP(broker), Topic: "lethe.request", Balancer: &kafka.RoundRobin{}, RequiredAcks: kafka.RequireAll,
		BatchSize: 2000, BatchTimeout: 10 * time.Millisecond,
	}
	defer w.Close()
	var batch []kafka.Message
	for i := first; i < end; i++ {
		batch = append(batch, kafka.Message{Value: fmt.Appendf(nil,
			`{"specversion":"1.0","id":"e-%d","source":"/load","type":"t","time":%q,"data":{"http.request.method":"GET","http.response.status_code":200,"client.address":"203.0.113.7","user.id":"u_%d","organization.id":"org_%d"}}`,
			i, from.Add(time.Duration(i)*10*time.Millisecond).Format(time.RFC3339Nano), i%killUsers, i%7)})
		if len(batch) == 20_000 || i == end-1 {
			if err := w.WriteMessages(t.Context(), batch...); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
		}
	}
}
