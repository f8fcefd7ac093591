package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/event"
)

func scalar[T any](t *testing.T, s *Store, statement string) (v T) {
	t.Helper()
	if err := s.conn.QueryRow(context.Background(), statement).Scan(&v); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return v
}

func TestSameTokenStoresNothing(t *testing.T) {
	s := open(t)
	var rows []*event.Row
	for i := range 50 { // three tables, two classes
		rows = append(rows, newRow(event.Kind(i%3), []string{usage, "support@3y"}[i%2], fmt.Sprintf("id-%d", i), now))
	}
	for range 3 {
		insertAs(t, s, "cluster/lethe.request/0/0-49", rows...)
	}
	if got := scalar[uint64](t, s, "SELECT count() FROM merge('^(request|audit|security)_events$')"); got != 50 {
		t.Errorf("same token three times: got %d rows, want 50", got)
	}
	insertAs(t, s, "cluster/lethe.request/0/50-99", rows...)
	if got := scalar[uint64](t, s, "SELECT count() FROM merge('^(request|audit|security)_events$')"); got != 100 {
		t.Errorf("another token: got %d rows, want 100", got)
	}
}

// TestInsertRows inserts a batch in pieces of its parts, each of which is told by
// the rows that Origin names.
func TestInsertRows(t *testing.T) {
	s := open(t)
	b := s.NewBatch()
	want := make(map[int64]string)
	for i := range 30 { // two parts; columns that end early and columns that begin late
		r := full(event.Request, i)
		if i%3 > 0 {
			r = newRow(event.Request, usage, fmt.Sprintf("id-%d", i), now.Add(time.Duration(i)*time.Second))
			r.Partition, r.Offset = 3, int64(1_000_000+i)
		}
		r.Retention = []string{usage, pro}[i%2]
		b.Add(r)
		want[r.Offset] = fmt.Sprint(r.ID, r.Retention, r.RetainedFrom.Unix())
	}
	if b.Parts() != 2 || b.PartRows(0) != 15 || b.PartRows(1) != 15 {
		t.Fatalf("got %d parts of %d and %d rows, want 2 of 15", b.Parts(), b.PartRows(0), b.PartRows(1))
	}
	stored := func() string {
		return scalar[string](t, s, "SELECT arrayStringConcat(arraySort(groupArray(toString(src_offset))), ' ') FROM request_events")
	}
	var there []string
	for _, c := range []struct{ part, from, to int }{{1, 14, 15}, {0, 0, 7}, {1, 0, 1}, {1, 1, 14}, {0, 7, 15}} {
		for range 2 { // the second time stores nothing
			if err := s.InsertRows(context.Background(), b, c.part, c.from, c.to, "t"); err != nil {
				t.Fatal(err)
			}
		}
		for place := c.from; place < c.to; place++ {
			var r event.Row
			b.Origin(c.part, place, &r)
			there = append(there, fmt.Sprint(r.Offset))
			if got := fmt.Sprint(r.ID, r.Retention, r.RetainedFrom.Unix()); got != want[r.Offset] || r.Kind != event.Request || r.Topic != "lethe.request" || r.Partition != 3 || r.Source != "/svc/api" {
				t.Errorf("part %d, place %d: got %+v, want %s", c.part, place, r, want[r.Offset])
			}
		}
		slices.Sort(there)
		if got := stored(); got != strings.Join(there, " ") {
			t.Fatalf("after part %d from %d to %d: got offsets %s, want %v", c.part, c.from, c.to, got, there)
		}
	}
	if got := scalar[uint64](t, s, "SELECT uniqExact(id) FROM request_events WHERE length(metadata) = 3 AND user_id != '' AND http_response_status_code >= 100"); got != 10 {
		t.Errorf("got %d full rows, want 10", got)
	}
	if err := s.Insert(context.Background(), b, "u"); err != nil {
		t.Fatal(err)
	}
	for part := range 2 { // a whole part has the token of Insert
		if err := s.InsertRows(context.Background(), b, part, 0, 15, "u"); err != nil {
			t.Fatal(err)
		}
	}
	if got := scalar[uint64](t, s, "SELECT count() FROM request_events"); got != 60 {
		t.Errorf("got %d rows, want each twice", got)
	}
}

func TestRepeatsCollapse(t *testing.T) {
	s := open(t)
	for range 3 { // one delivery, written under three tokens, as after a lost commit
		insert(t, s, newRow(event.Audit, usage, "same", now), newRow(event.Audit, usage, "other", now))
	}
	if got := scalar[uint64](t, s, "SELECT count() FROM audit_events"); got != 6 {
		t.Fatalf("before the merge: got %d rows, want 6", got)
	}
	read := func() int {
		page, err := s.Events(context.Background(), event.Filter{From: now.Add(-time.Hour), To: now.Add(time.Hour), Now: now}, nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(page)
	}
	if got := read(); got != 2 {
		t.Errorf("readers before the merge: got %d rows, want 2", got)
	}
	if err := s.conn.Exec(context.Background(), "OPTIMIZE TABLE audit_events FINAL"); err != nil {
		t.Fatal(err)
	}
	if got := scalar[uint64](t, s, "SELECT count() FROM audit_events"); got != 2 {
		t.Errorf("after the merge: got %d rows, want 2", got)
	}
	if got := read(); got != 2 {
		t.Errorf("readers after the merge: got %d rows, want 2", got)
	}
}

func TestOnePartPerPartitionValue(t *testing.T) {
	s := open(t)
	g := newGenerator()
	b := s.NewBatch()
	for _, r := range g.rows(20_000) {
		b.Add(&r)
	}
	if err := s.Insert(context.Background(), b, "t"); err != nil {
		t.Fatal(err)
	}
	if got := scalar[uint64](t, s, "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'request_events' AND level = 0 AND partition != ''"); got != 4 {
		t.Errorf("four partition values: got %d parts, want 4", got)
	}
	if b.Rows() != 20_000 || b.Bytes() < 20_000*200 || b.Bytes() > 20_000*600 {
		t.Errorf("got %d rows and %d bytes", b.Rows(), b.Bytes())
	}
	b.Reset()
	if b.Rows() != 0 || b.Bytes() != 0 {
		t.Errorf("after Reset: got %d rows and %d bytes, want none", b.Rows(), b.Bytes())
	}
	if err := s.Insert(context.Background(), b, "empty"); err != nil {
		t.Errorf("an empty batch: %v", err)
	}
}

// TestSorted compares the batch's own sort with a comparison field by field.
func TestSorted(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	b := newBatch()
	type key struct {
		organization, user string
		occurred           int64
		source, id, topic  string
		partition          int32
		offset             int64
	}
	var keys []key
	long := strings.Repeat("x", 20)
	for range 3000 {
		r := newRow(event.Request, usage, fmt.Sprint(random.IntN(5)), now.Add(time.Duration(random.IntN(3))*time.Millisecond))
		r.Source, r.Topic = []string{"/b", "/a", ""}[random.IntN(3)], []string{"t2", "t1"}[random.IntN(2)]
		r.Partition, r.Offset = int32(random.IntN(3)), int64(random.IntN(100))
		r.Text[event.TOrganization] = []string{"", "org_2", "org_10", "ü"}[random.IntN(4)]
		r.Text[event.TUserID] = []string{"", "a", "a\x00", "ab", long, long + "1", long + "2", "ü"}[random.IntN(8)]
		b.Add(r)
		keys = append(keys, key{r.Text[event.TOrganization], r.Text[event.TUserID], r.OccurredAt.UnixMilli(), r.Source, r.ID, r.Topic, r.Partition, r.Offset})
	}
	d := b.sorted()[0]
	d.sort()
	less := func(x, y key) int {
		return slices.Compare(
			[]string{x.organization, x.user, fmt.Sprintf("%020d", x.occurred), x.source, x.id, x.topic, fmt.Sprintf("%020d", x.partition), fmt.Sprintf("%020d", x.offset)},
			[]string{y.organization, y.user, fmt.Sprintf("%020d", y.occurred), y.source, y.id, y.topic, fmt.Sprintf("%020d", y.partition), fmt.Sprintf("%020d", y.offset)})
	}
	for i := 1; i < len(d.order); i++ {
		if x, y := keys[d.order[i-1]], keys[d.order[i]]; less(x, y) > 0 {
			t.Fatalf("place %d: %+v before %+v", i, x, y)
		}
	}
}

// TestColumnsDecode reads what a block encodes with the client library's own
// decoder, at the revision of either protocol, and from a batch that was used before.
func TestColumnsDecode(t *testing.T) {
	b := newBatch()
	for round := range 3 {
		b.Reset()
		n := 10 + 500*round
		for i := range n {
			r := full(event.Security, i)
			r.Text[event.TRegion] = fmt.Sprintf("region-%d", i) // wider numbers in the second round
			b.Add(r)
		}
		d := b.sorted()[0]
		d.sort()
		for _, revision := range []int{0, proto.Version} {
			var buf proto.Buffer
			in := d.input(d.order)
			if err := (proto.Block{Columns: len(in), Rows: d.rows}).EncodeRawBlock(&buf, revision, in); err != nil {
				t.Fatal(err)
			}
			var ids proto.ColStr
			regions := new(proto.ColStr).LowCardinality()
			results := proto.Results{}
			for _, c := range in {
				switch {
				case c.Name == "id":
					results = append(results, proto.ResultColumn{Name: c.Name, Data: &ids})
				case c.Name == "region":
					results = append(results, proto.ResultColumn{Name: c.Name, Data: regions})
				case c.Data.Type() == "LowCardinality(String)":
					results = append(results, proto.ResultColumn{Name: c.Name, Data: new(proto.ColStr).LowCardinality()})
				default:
					results = append(results, proto.AutoResult(c.Name))
				}
			}
			var head proto.Block
			if err := head.DecodeRawBlock(proto.NewReader(bytes.NewReader(buf.Buf)), revision, results); err != nil {
				t.Fatalf("revision %d: %v", revision, err)
			}
			if head.Rows != n {
				t.Fatalf("revision %d: got %d rows, want %d", revision, head.Rows, n)
			}
			for i := range n {
				if id, region := ids.Row(i), regions.Row(i); "region"+strings.TrimPrefix(id, "id") != region {
					t.Fatalf("revision %d, row %d: id %s with %s", revision, i, id, region)
				}
			}
			var written bytes.Buffer
			w := proto.NewWriter(&written, new(proto.Buffer))
			err := (proto.Block{Columns: len(in), Rows: d.rows, Info: proto.BlockInfo{BucketNum: -1}}).WriteBlock(w, revision, in)
			if _, flushed := w.Flush(); err != nil || flushed != nil || !bytes.HasSuffix(written.Bytes(), buf.Buf) {
				t.Errorf("revision %d: the block written column by column differs (%v, %v)", revision, err, flushed)
			}
			if revision == 0 {
				streamed, err := io.ReadAll(&blockReader{in: d.input(d.order), rows: d.rows})
				if err != nil || !bytes.Equal(streamed, buf.Buf) {
					t.Errorf("streamed block differs from the whole one (%v)", err)
				}
			}
		}
	}
}

// TestBatchMemory holds 100,000 ordinary rows, sorted and encoded, to 40 MB.
func TestBatchMemory(t *testing.T) {
	g := newGenerator()
	g.rows(500)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	b := newBatch()
	for range 100_000 / 500 {
		for _, r := range g.rows(500) {
			b.Add(&r)
		}
	}
	var readers []*blockReader
	for _, d := range b.sorted() {
		d.sort()
		r := &blockReader{in: d.input(d.order), rows: len(d.order)}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		readers = append(readers[:0], r) // one block is sent at a time
	}
	if got := heap() - before; got > 40_000_000 {
		t.Errorf("got %d bytes, want at most 40 MB", got)
	}
	if got := b.Bytes(); got > 40_000_000 || got < 20_000_000 {
		t.Errorf("Bytes says %d", got)
	}
	runtime.KeepAlive(readers)
}

func TestWideDictionary(t *testing.T) {
	for _, n := range []int{1, 255, 256, 257, 65535, 65536, 65537, 70000} {
		var c dictionary
		for i := range n {
			c.add(2*i, fmt.Sprint("v", i)) // every other row absent
		}
		order := make([]uint32, 2*n)
		for i := range order {
			order[i] = uint32(i)
		}
		raw := binary.LittleEndian.AppendUint64(nil, keysVersion)
		c.pad(len(order))
		raw = c.encode(raw, order)
		got := new(proto.ColStr).LowCardinality()
		r := proto.NewReader(bytes.NewReader(raw))
		if err := errors.Join(got.DecodeState(r), got.DecodeColumn(r, len(order))); err != nil {
			t.Fatalf("%d values: %v", n, err)
		}
		for i := range n {
			if v, absent := got.Row(2*i), got.Row(2*i+1); v != fmt.Sprint("v", i) || absent != "" {
				t.Fatalf("%d values, row %d: got %q and %q", n, 2*i, v, absent)
			}
		}
	}
}

func TestCompressedInserts(t *testing.T) {
	_, dsn := openDSN(t)
	for i, compression := range []string{"lz4", "zstd"} {
		s, err := Open(context.Background(), Options{DSN: dsn + "?compress=" + compression})
		if err != nil {
			t.Fatal(err)
		}
		g := newGenerator()
		b := s.NewBatch()
		for _, r := range g.rows(10_000) {
			b.Add(&r)
		}
		if err := s.Insert(context.Background(), b, compression); err != nil {
			t.Fatal(err)
		}
		if got := scalar[uint64](t, s, "SELECT count() FROM request_events"); got != uint64(10_000*(i+1)) {
			t.Errorf("%s: got %d rows, want %d", compression, got, 10_000*(i+1))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := open(t)
	const writers, rounds, each = 4, 5, 200
	var group sync.WaitGroup
	failed := make(chan error, 2*writers)
	for w := range writers {
		group.Go(func() {
			b := s.NewBatch()
			for i := range rounds {
				b.Reset()
				for j := range each {
					b.Add(newRow(event.Request, usage, fmt.Sprintf("%d-%d-%d", w, i, j), now.Add(time.Duration(w*1000+j)*time.Millisecond)))
				}
				if err := s.Insert(context.Background(), b, fmt.Sprintf("%d-%d", w, i)); err != nil {
					failed <- err
					return
				}
			}
		})
		group.Go(func() {
			f := event.Filter{From: now.Add(-time.Hour), To: now.Add(time.Hour), Now: now}
			for range rounds {
				if _, err := s.Events(context.Background(), f, nil, 100); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if got := scalar[uint64](t, s, "SELECT count() FROM request_events"); got != writers*rounds*each {
		t.Errorf("got %d rows, want %d", got, writers*rounds*each)
	}
}

// TestInsertSettings asks the server which settings it saw.
func TestInsertSettings(t *testing.T) {
	s := open(t)
	settings := insertSettings()
	settings["insert_deduplication_token"] = "a|b"
	ctx := clickhouse.Context(context.Background(), clickhouse.WithSettings(settings))
	for name, value := range settings {
		var got string
		if err := s.conn.QueryRow(ctx, "SELECT value FROM system.settings WHERE name = {name:String}", clickhouse.Named("name", name)).Scan(&got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if want := fmt.Sprint(value); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
