package store

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// model accounts for offsets one by one.
type model map[ledger.Partition]map[int64]bool

// newest keeps the partitions of each topic's newest epoch.
func (m model) newest() []ledger.Partition {
	epochs := make(map[[2]string]uint32)
	for p := range m {
		k := [2]string{p.Cluster, p.Topic}
		epochs[k] = max(epochs[k], p.Epoch)
	}
	var list []ledger.Partition
	for p := range m {
		if p.Epoch == epochs[[2]string{p.Cluster, p.Topic}] {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b ledger.Partition) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return list
}

func (m model) ends(cluster string) (ends []ledger.End) {
	for _, p := range m.newest() {
		if cluster != "" && p.Cluster != cluster {
			continue
		}
		next := int64(1 << 62)
		for offset := range m[p] {
			next = min(next, offset)
		}
		for m[p][next] {
			next++
		}
		ends = append(ends, ledger.End{Partition: p, Next: next})
	}
	return ends
}

func (m model) gaps() (gaps []ledger.Gap) {
	for _, p := range m.newest() {
		var offsets []int64
		for offset := range m[p] {
			offsets = append(offsets, offset)
		}
		slices.Sort(offsets)
		for i := 1; i < len(offsets); i++ {
			if offsets[i] != offsets[i-1]+1 {
				gaps = append(gaps, ledger.Gap{Partition: p, First: offsets[i-1] + 1, Last: offsets[i] - 1})
			}
		}
	}
	return gaps
}

func TestLedgerEqualsAModel(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	random := rand.New(rand.NewPCG(5, 5))
	if h, err := s.Horizon(ctx); err != nil || !h.Since.IsZero() || !h.CompleteUntil.IsZero() || h.Gaps != nil {
		t.Fatalf("empty ledger: got %+v and %v, want nothing known", h, err)
	}
	if ends, err := s.LedgerEnds(ctx, "c1"); err != nil || len(ends) != 0 {
		t.Fatalf("empty ledger: got %v and %v", ends, err)
	}
	for round := range 6 {
		m := make(model)
		var since time.Time
		for range 1 + random.IntN(4) { // inserts: several unmerged parts
			var entries []ledger.Entry
			for range 1 + random.IntN(60) {
				p := ledger.Partition{Cluster: fmt.Sprintf("r%d-c%d", round, random.IntN(2)), Topic: []string{"a", "b"}[random.IntN(2)], Epoch: uint32(random.IntN(2)), Partition: int32(random.IntN(2))}
				first := int64(random.IntN(300))
				last := first + int64(random.IntN(12))
				e := ledger.Entry{Partition: p, First: first, Last: last, ReceivedAt: now.Add(time.Duration(random.IntN(1000)) * time.Millisecond)}
				e.Counts[ledger.Stored] = uint64(last - first + 1)
				entries = append(entries, e)
				if m[p] == nil {
					m[p] = make(map[int64]bool)
				}
				for o := first; o <= last; o++ {
					m[p][o] = true
				}
				if since.IsZero() || e.ReceivedAt.Before(since) {
					since = e.ReceivedAt
				}
			}
			for range 1 + random.IntN(2) { // also written twice
				if err := s.WriteLedger(ctx, entries); err != nil {
					t.Fatal(err)
				}
			}
		}
		cluster := fmt.Sprintf("r%d-c1", round)
		ends, err := s.LedgerEnds(ctx, cluster)
		if err != nil {
			t.Fatal(err)
		}
		if want := m.ends(cluster); !slices.Equal(ends, want) {
			t.Fatalf("round %d: ends:\ngot  %v\nwant %v", round, ends, want)
		}
		if err := s.WriteProgress(ctx, []ledger.Progress{
			{Partition: ledger.Partition{Cluster: "c", Topic: "a", Epoch: 1}, CompleteUntil: now.Add(5 * time.Second), UpdatedAt: now},
			{Partition: ledger.Partition{Cluster: "c", Topic: "a", Epoch: 1, Partition: 1}, CompleteUntil: now.Add(3 * time.Second), UpdatedAt: now},
			{Partition: ledger.Partition{Cluster: "c", Topic: "a", Epoch: 1, Partition: 1}, CompleteUntil: now.Add(time.Second), UpdatedAt: now.Add(-time.Second)},
			{Partition: ledger.Partition{Cluster: "c", Topic: "a", Epoch: 0}, CompleteUntil: now.Add(-time.Hour), UpdatedAt: now},
		}); err != nil {
			t.Fatal(err)
		}
		h, err := s.Horizon(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if want := m.gaps(); !slices.Equal(h.Gaps, want) {
			t.Fatalf("round %d: gaps:\ngot  %v\nwant %v", round, h.Gaps, want)
		}
		if !h.Since.Equal(since) {
			t.Errorf("round %d: since: got %s, want %s", round, h.Since, since)
		}
		if want := now.Add(3 * time.Second); !h.CompleteUntil.Equal(want) {
			t.Errorf("round %d: complete until: got %s, want %s", round, h.CompleteUntil, want)
		}
		for _, table := range []string{"ingest_ledger", "ingest_progress"} {
			if err := s.conn.Exec(ctx, "TRUNCATE TABLE "+table); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLedgerRoundTrip reads every column of an entry back.
func TestLedgerRoundTrip(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	e := ledger.Entry{
		Partition: ledger.Partition{Cluster: "c", Topic: "lethe.audit", Epoch: 2, Partition: 7}, First: 10, Last: 29,
		Generation: 3, ReceivedAt: now.Add(123 * time.Millisecond), PolicyVersion: "p-1", Counts: [ledger.NumOutcomes]uint64{10, 2, 3, 1, 2, 2},
		Other: []ledger.Run{{First: 10, Last: 11, Outcome: ledger.Dead}, {First: 20, Last: 22, Outcome: ledger.Expired}},
		Cells: []ledger.Cell{{Table: "audit_events", Retention: usage, Day: 20000, Rows: 6, Digest: 1<<64 - 1}, {Table: "audit_events", Retention: account, Day: -1, Rows: 4, Digest: 5}},
	}
	for range 2 {
		if err := s.WriteLedger(ctx, []ledger.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.conn.Exec(ctx, "OPTIMIZE TABLE ingest_ledger FINAL"); err != nil {
		t.Fatal(err)
	}
	got := scalar[string](t, s, "SELECT concat(count(), ' ', any(toString((cluster, topic, epoch, partition, first, last, generation, received_at, policy_version, stored, dead, expired, suppressed, lost, absent, `other.first`, `other.last`, `other.outcome`, `cells.table`, `cells.retention`, `cells.day`, `cells.rows`, `cells.digest`)))) FROM ingest_ledger")
	want := "1 ('c','lethe.audit',2,7,10,29,3,'" + e.ReceivedAt.Format("2006-01-02 15:04:05.000") + "','p-1',10,2,3,1,2,2,[10,20],[11,22],['dead','expired'],['audit_events','audit_events'],['usage@2y','account@90d-after-account.deleted'],['2024-10-04','1969-12-31'],[6,4],[18446744073709551615,5])"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	d := ledger.DeadCount{Partition: e.Partition, First: 10, Last: 29, Reason: "missing_attribute", Attribute: "event.action", Publisher: "/svc/api", Count: 1, ReceivedAt: now}
	if err := s.WriteDead(ctx, []ledger.DeadCount{d}); err != nil {
		t.Fatal(err)
	}
	d.Count, d.ReceivedAt = 2, now.Add(time.Second)
	if err := s.WriteDead(ctx, []ledger.DeadCount{d}); err != nil {
		t.Fatal(err)
	}
	if got := scalar[string](t, s, "SELECT toString((count(), any(count), any(reason), any(attribute), any(publisher), any(last))) FROM dead_letters FINAL"); got != "(1,2,'missing_attribute','event.action','/svc/api',29)" {
		t.Errorf("dead letters: got %s", got)
	}
	for name, err := range map[string]error{"ledger": s.WriteLedger(ctx, nil), "progress": s.WriteProgress(ctx, nil), "dead": s.WriteDead(ctx, nil)} {
		if err != nil {
			t.Errorf("%s: nothing to write: %v", name, err)
		}
	}
}

// TestDigest computes a cell's digest in ClickHouse as the ledger does in Go.
func TestDigest(t *testing.T) {
	s := open(t)
	var rows []*event.Row
	var want uint64
	for i := range 100 {
		r := newRow(event.Audit, usage, fmt.Sprintf("id-ü%d", i), now)
		r.Offset = int64(i) * 1_000_000_007
		want += ledger.Digest(r.Source, r.ID, r.Offset)
		rows = append(rows, r)
	}
	insert(t, s, rows...)
	if got := scalar[uint64](t, s, `SELECT sumWithOverflow(xxHash64(concat(source, '\0', id, '\0', toString(src_offset)))) FROM audit_events`); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestHorizonReusesTheLedgersView(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	s.options.LedgerAge = time.Minute
	clock := now
	s.now = func() time.Time { return clock }
	entry := func(first, last int64) {
		t.Helper()
		if err := s.WriteLedger(ctx, []ledger.Entry{{
			Partition: ledger.Partition{Cluster: "c", Topic: "t"}, First: first, Last: last, ReceivedAt: now,
		}}); err != nil {
			t.Fatal(err)
		}
	}
	gaps := func() int {
		t.Helper()
		h, err := s.Horizon(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(h.Gaps)
	}
	entry(0, 9)
	if got := gaps(); got != 0 {
		t.Errorf("a whole ledger: got %d gaps, want none", got)
	}
	entry(20, 29)
	clock = clock.Add(59 * time.Second)
	if got := gaps(); got != 0 {
		t.Errorf("within a minute: got %d gaps, want the view of before", got)
	}
	clock = clock.Add(time.Second)
	if got := gaps(); got != 1 {
		t.Errorf("after a minute: got %d gaps, want 1", got)
	}
}
