package ingest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

func TestWhereAPartitionStarts(t *testing.T) {
	cases := []struct {
		name              string
		ledger, committed int64
		log               bounds
		from              int64
		ahead             bool
		stops             string
	}{
		{"nothing is known", -1, -1, bounds{7, 90}, 7, false, ""},
		{"an empty partition", -1, -1, bounds{0, 0}, 0, false, ""},
		{"ClickHouse came back with nothing", -1, 40, bounds{0, 90}, 40, true, ""},
		{"nothing is known before the committed offset", -1, 40, bounds{40, 90}, 40, false, ""},
		{"only the ledger", 30, -1, bounds{0, 90}, 30, false, ""},
		{"both agree", 30, 30, bounds{0, 90}, 30, false, ""},
		{"killed before the commit", 30, 20, bounds{0, 90}, 30, false, ""},
		{"ClickHouse came back from a backup", 20, 30, bounds{0, 90}, 20, true, ""},
		{"everything is done", 90, 90, bounds{0, 90}, 90, false, ""},
		{"topic retention was faster", 20, 20, bounds{50, 90}, 20, false, ""},
		{"the ledger is ahead of the topic", 91, 20, bounds{0, 90}, 0, false, "ingest ledger new-epoch TOPIC"},
		{"the group is ahead of the topic", -1, 91, bounds{0, 90}, 0, false, "reset the group's offset"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := origin{ledger: c.ledger, committed: c.committed}
			got, err := o.from(c.log)
			if c.stops != "" {
				if err == nil || !strings.Contains(err.Error(), c.stops) {
					t.Errorf("got error %v, want one with %q", err, c.stops)
				}
				return
			}
			if err != nil || got != c.from {
				t.Errorf("got %d, error %v; want %d", got, err, c.from)
			}
			if got := o.ahead(c.log); got != c.ahead {
				t.Errorf("got ahead %v, want %v", got, c.ahead)
			}
		})
	}
}

// A ledger that knows other partitions came back from a backup that is older than the
// first event of this one.
func TestAPartitionYoungerThanTheBackup(t *testing.T) {
	o, log := origin{ledger: -1, committed: 40, others: true}, bounds{5, 90}
	if got, err := o.from(log); got != 5 || err != nil || !o.ahead(log) {
		t.Errorf("got %d, %v, ahead %t, want the start of the log and an alarm", got, err, o.ahead(log))
	}
}

func TestOnlyTheNewestEpochCounts(t *testing.T) {
	end := func(topic string, epoch uint32, partition int32, next int64) ledger.End {
		return ledger.End{Partition: ledger.Partition{Topic: topic, Epoch: epoch, Partition: partition}, Next: next}
	}
	known, epochs := latest([]ledger.End{end("a", 0, 0, 100), end("a", 1, 0, 5), end("a", 0, 1, 70), end("b", 0, 0, 9)})
	if got, want := fmt.Sprint(known), fmt.Sprint(map[place]int64{{"a", 0}: 5, {"b", 0}: 9}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if epochs["a"] != 1 || epochs["b"] != 0 {
		t.Errorf("got epochs %v, want a: 1, b: 0", epochs)
	}
}

func TestCompleteUntil(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1_000_000+s), 0) }
	p := &partition{started: at(0), end: 100}
	check := func(when string, want time.Time) {
		t.Helper()
		if got := p.progress(at(99)).CompleteUntil; !got.Equal(want) {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
	}
	p.note(mark{at(10), 100}) // a fetch asked at 10 s found the end at 100
	p.finished(50)
	check("half way", time.Time{})
	p.note(mark{at(5), 60}) // the broker appended offset 60 at 5 s
	p.finished(60)
	check("at an offset whose append is known", at(5))
	p.finished(100)
	check("at the end that was seen", at(10))
	p.note(mark{at(20), 130})
	p.settle()
	check("behind again", at(10))
	p.note(mark{at(30), 130})
	p.finished(130)
	check("the same end seen later", at(30))
	for i := range 10 * maxMarks {
		p.note(mark{at(100 + i), int64(200 + i)})
	}
	if got := len(p.marks); got > maxMarks {
		t.Errorf("got %d marks, want at most %d", got, maxMarks)
	}
	p.finished(150)
	check("many ends ahead", at(30))
	p.finished(200 + 10*maxMarks)
	check("the newest end survived", at(100+10*maxMarks-1))
	if events, behind := p.lag(at(100 + 10*maxMarks)); events != 0 || behind != time.Second {
		t.Errorf("got lag %d, %v; want 0, 1s", events, behind)
	}
}

func TestPublishersAreBoundedAndHoldNoAddress(t *testing.T) {
	p := newPublishers()
	for source, want := range map[string]string{
		"/svc/api": "/svc/api", "urn:svc-2": "urn:svc-2", "": publisherUnknown,
		"/hosts/192.0.2.7": publisherOther, "2001:db8::1": publisherOther, "fe80::1": publisherOther, "/u/someone@example.com": publisherOther,
		"0192-4711-abc": publisherOther, strings.Repeat("a", 65): publisherOther, "/svc/\n": publisherOther, "/svc/é": publisherOther,
	} {
		if got := p.name(source); got != want {
			t.Errorf("%q: got %q, want %q", source, got, want)
		}
	}
	n := newNames(p)
	for i := range 300 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26))
		n.of(name)
		n.of(name)
	}
	if got := len(p.named); got != maxPublishers {
		t.Errorf("got %d names, want %d", got, maxPublishers)
	}
	if got := len(n.known); got > maxPublishers {
		t.Errorf("a worker keeps %d names, want at most %d", got, maxPublishers)
	}
	if got := n.of("/one/more"); got != publisherOther {
		t.Errorf("after the last name: got %q, want %q", got, publisherOther)
	}
	if got := n.of("/svc/api"); got != "/svc/api" {
		t.Errorf("a known name: got %q, want %q", got, "/svc/api")
	}
}

func TestTokenNamesOffsetsAndRows(t *testing.T) {
	entry := func() ledger.Entry {
		return ledger.Entry{Partition: ledger.Partition{Cluster: "c", Topic: "t"}, First: 0, Last: 9, ReceivedAt: time.Unix(1, 0), Generation: 1,
			Cells: []ledger.Cell{{Table: "request_events", Retention: "usage@2y", Rows: 10, Digest: 7}}}
	}
	same := token("p", []ledger.Entry{entry()})
	later := entry()
	later.ReceivedAt, later.Generation = time.Unix(2, 0), 5
	if got := token("p", []ledger.Entry{later}); got != same {
		t.Errorf("another try of the same rows: got token %s, want %s", got, same)
	}
	if token("q", []ledger.Entry{entry()}) == same {
		t.Error("another process: got the same token")
	}
	for name, change := range map[string]func(*ledger.Entry){
		"another cluster":       func(e *ledger.Entry) { e.Cluster = "d" },
		"a topic that runs on":  func(e *ledger.Entry) { e.Cluster, e.Topic = "", "ct" },
		"another epoch":         func(e *ledger.Entry) { e.Epoch = 1 },
		"another partition":     func(e *ledger.Entry) { e.Partition.Partition = 1 },
		"other offsets":         func(e *ledger.Entry) { e.Last = 10 },
		"rows in another class": func(e *ledger.Entry) { e.Cells[0].Retention = "usage@1y" },
		"other rows":            func(e *ledger.Entry) { e.Cells[0].Digest = 8 },
	} {
		e := entry()
		change(&e)
		if token("p", []ledger.Entry{e}) == same {
			t.Errorf("%s: got the same token", name)
		}
	}
}

func TestBudgetBoundsWhatIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100)
		ctx, cancel := context.WithCancel(t.Context())
		if !b.take(ctx, 60) || !b.take(ctx, 40) {
			t.Fatal("two takers that fit: got false")
		}
		took := make(chan bool)
		for range 2 {
			go func() { took <- b.take(ctx, 30) }()
		}
		synctest.Wait()
		select {
		case <-took:
			t.Fatal("a taker got through although nothing is free")
		default:
		}
		b.use(60, 0) // the answer was empty: both fit now
		for range 2 {
			if !<-took {
				t.Error("after bytes were given back: got false")
			}
		}
		go func() { took <- b.take(ctx, 500) }()
		synctest.Wait()
		b.give(100)
		if !<-took {
			t.Error("a taker of more than the limit never gets through")
		}
		go func() { took <- b.take(ctx, 1) }()
		synctest.Wait()
		cancel()
		if <-took {
			t.Error("after the end: got true")
		}
	})
}
