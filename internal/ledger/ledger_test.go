package ledger

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestUnite(t *testing.T) {
	const most = 1<<63 - 1
	cases := []struct {
		name   string
		ranges []Range
		united []Range
		next   int64
	}{
		{"nothing", nil, nil, 0},
		{"one", []Range{{3, 5}}, []Range{{3, 5}}, 6},
		{"adjacent", []Range{{4, 7}, {0, 3}}, []Range{{0, 7}}, 8},
		{"a gap of one", []Range{{0, 3}, {5, 7}}, []Range{{0, 3}, {5, 7}}, 4},
		{"delivered twice", []Range{{0, 3}, {0, 3}}, []Range{{0, 3}}, 4},
		{"delivered twice in other batches", []Range{{0, 5}, {3, 9}, {4, 4}}, []Range{{0, 9}}, 10},
		{"one inside another, then a gap", []Range{{0, 9}, {2, 3}, {11, 12}}, []Range{{0, 9}, {11, 12}}, 10},
		{"an empty range", []Range{{5, 4}, {7, 8}}, []Range{{7, 8}}, 9},
		{"up to the largest offset", []Range{{0, most - 1}, {most, most}}, []Range{{0, most}}, -1 << 63},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := Unite(c.ranges)
			if !reflect.DeepEqual(got, c.united) {
				t.Errorf("got %v, want %v", got, c.united)
			}
			if next, ok := Next(got); next != c.next || ok != (len(c.united) > 0) {
				t.Errorf("got next %d, %v; want %d", next, ok, c.next)
			}
		})
	}
}

// An offset is in the union exactly when it is in a range, and in a gap exactly
// when it lies between and is not.
func TestUniteAgreesWithASet(t *testing.T) {
	one := rapid.Custom(func(t *rapid.T) Range {
		first := rapid.Int64Range(0, 60).Draw(t, "first")
		return Range{first, first + rapid.Int64Range(0, 12).Draw(t, "more")}
	})
	rapid.Check(t, func(t *rapid.T) {
		ranges := rapid.SliceOf(one).Draw(t, "ranges")
		set := make(map[int64]bool)
		for _, r := range ranges {
			for o := r.First; o <= r.Last; o++ {
				set[o] = true
			}
		}
		united := Unite(ranges)
		for i, r := range united {
			if i > 0 && r.First <= united[i-1].Last+1 {
				t.Fatalf("%v and %v are not apart", united[i-1], r)
			}
		}
		holds := func(ranges []Range, o int64) bool {
			for _, r := range ranges {
				if r.First <= o && o <= r.Last {
					return true
				}
			}
			return false
		}
		gaps := Between(united)
		for o := int64(-1); o < 80; o++ {
			if got, want := holds(united, o), set[o]; got != want {
				t.Fatalf("offset %d in the union: got %v, want %v", o, got, want)
			}
			between := len(united) > 0 && o > united[0].First && o < united[len(united)-1].Last && !set[o]
			if got := holds(gaps, o); got != between {
				t.Fatalf("offset %d in a gap: got %v, want %v", o, got, between)
			}
		}
		if next, ok := Next(united); ok && set[next] {
			t.Fatalf("next offset %d has been accounted for", next)
		}
	})
}

var here = Partition{Cluster: "c", Topic: "lethe.request", Partition: 3}

func TestBuilderMakesAnEntry(t *testing.T) {
	var b Builder
	b.Reset(here)
	if !b.Empty() {
		t.Error("a builder is not empty after Reset")
	}
	for _, r := range []Run{{10, 14, Stored}, {15, 15, Dead}, {16, 17, Dead}, {18, 20, Absent}, {21, 21, Stored}, {22, 22, Dead}} {
		if err := b.Add(r.First, r.Last, r.Outcome); err != nil {
			t.Fatal(err)
		}
	}
	b.Count(Cell{"request_events", "usage@2y", 20_000, 2, 5})
	b.Count(Cell{"audit_events", "usage@2y", 20_000, 1, 7})
	b.Count(Cell{"request_events", "usage@2y", 20_000, 3, 1<<64 - 1})
	at := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	got := b.Entry(4, at, "p-1")
	want := Entry{
		Partition: here, First: 10, Last: 22, Generation: 4, ReceivedAt: at, PolicyVersion: "p-1",
		Counts: [NumOutcomes]uint64{Stored: 6, Dead: 4, Absent: 3},
		Other:  []Run{{15, 17, Dead}, {18, 20, Absent}, {22, 22, Dead}},
		Cells:  []Cell{{"audit_events", "usage@2y", 20_000, 1, 7}, {"request_events", "usage@2y", 20_000, 5, 4}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if got, want := b.Range(), (Range{10, 22}); got != want {
		t.Errorf("got range %v, want %v", got, want)
	}
	b.Reset(here)
	if err := b.Add(0, 0, Stored); err != nil {
		t.Fatal(err)
	}
	if len(got.Other) != 3 || got.Other[0] != (Run{15, 17, Dead}) || got.Cells[0].Rows != 1 {
		t.Errorf("an entry changed with its builder: %+v", got)
	}
}

func TestBuilderRefusesHoles(t *testing.T) {
	for name, second := range map[string]Run{
		"a hole":      {12, 12, Stored},
		"an overlap":  {10, 12, Stored},
		"backwards":   {11, 10, Stored},
		"from before": {5, 6, Stored},
	} {
		var b Builder
		b.Reset(here)
		if err := b.Add(10, 10, Stored); err != nil {
			t.Fatal(err)
		}
		if err := b.Add(second.First, second.Last, second.Outcome); err == nil {
			t.Errorf("%s: got no error", name)
		}
		if got, want := b.Range(), (Range{10, 10}); got != want {
			t.Errorf("%s: got range %v, want %v", name, got, want)
		}
	}
}

// Whatever the outcomes, each offset keeps its own and the counts sum up.
func TestBuilderKeepsEveryOutcome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b Builder
		b.Reset(here)
		first := rapid.Int64Range(0, 1<<60).Draw(t, "first")
		next := first
		want := make(map[int64]Outcome)
		for range rapid.IntRange(1, 40).Draw(t, "runs") {
			o := Outcome(rapid.IntRange(0, NumOutcomes-1).Draw(t, "outcome"))
			last := next + rapid.Int64Range(0, 5).Draw(t, "more")
			if err := b.Add(next, last, o); err != nil {
				t.Fatal(err)
			}
			for ; next <= last; next++ {
				want[next] = o
			}
		}
		e := b.Entry(1, time.Time{}, "")
		sum := uint64(0)
		for _, n := range e.Counts {
			sum += n
		}
		if e.First != first || e.Last != next-1 || sum != uint64(e.Last-e.First)+1 {
			t.Fatalf("got %d to %d with %d outcomes, want %d to %d", e.First, e.Last, sum, first, next-1)
		}
		got := make(map[int64]Outcome)
		for i, r := range e.Other {
			if r.Outcome == Stored || i > 0 && r.First == e.Other[i-1].Last+1 && r.Outcome == e.Other[i-1].Outcome {
				t.Fatalf("runs are not the fewest: %v", e.Other)
			}
			for o := r.First; o <= r.Last; o++ {
				got[o] = r.Outcome
			}
		}
		for o, w := range want {
			if got[o] != w { // what is in no run is stored, the zero outcome
				t.Fatalf("offset %d: got %v, want %v", o, got[o], w)
			}
		}
	})
}

// The number is ClickHouse's: xxHash64(concat('/svc/api', '\0', 'e-1', '\0', '42')).
func TestDigestIsWhatClickHouseComputes(t *testing.T) {
	if got, want := Digest("/svc/api", "e-1", 42), uint64(3957243953551940279); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	if Digest("a", "b", 1) == Digest("a\x00b", "", 1) {
		t.Error("source and id can be shifted against each other")
	}
}

// Refusing rows of an entry gives what a builder makes when they were dead from
// the start.
func TestRefusedRowsLeaveTheEntryOfDeadOnes(t *testing.T) {
	const table = "request_events"
	rapid.Check(t, func(t *rapid.T) {
		type offset struct {
			outcome Outcome
			class   string
			refused bool
		}
		offsets := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) offset {
			o := offset{outcome: rapid.SampledFrom([]Outcome{Stored, Stored, Dead, Absent}).Draw(t, "outcome")}
			if o.outcome == Stored {
				o.class, o.refused = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "class"), rapid.Bool().Draw(t, "refused")
			}
			return o
		}), 1, 20).Draw(t, "offsets")
		row := func(i int) Cell {
			return Cell{Table: table, Retention: offsets[i].class, Day: int32(i % 2), Rows: 1, Digest: Digest("s", "e", int64(i))}
		}
		build := func(outcome func(offset) Outcome) Entry {
			var b Builder
			b.Reset(here)
			for i, o := range offsets {
				if err := b.Add(int64(i), int64(i), outcome(o)); err != nil {
					t.Fatal(err)
				}
				if outcome(o) == Stored {
					b.Count(row(i))
				}
			}
			return b.Entry(1, time.Time{}, "")
		}
		got := build(func(o offset) Outcome { return o.outcome })
		want := build(func(o offset) Outcome {
			if o.refused {
				return Dead
			}
			return o.outcome
		})
		for i := len(offsets) - 1; i >= 0; i -= 2 { // in some order
			if offsets[i].refused && !got.Refuse(int64(i), row(i)) {
				t.Fatalf("offset %d: it was not stored", i)
			}
		}
		for i := len(offsets) - 2; i >= 0; i -= 2 {
			if offsets[i].refused && !got.Refuse(int64(i), row(i)) {
				t.Fatalf("offset %d: it was not stored", i)
			}
		}
		if len(got.Cells) == 0 {
			got.Cells = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
		for i, o := range offsets {
			if (o.outcome != Stored || o.refused) && got.Refuse(int64(i), row(i)) {
				t.Fatalf("offset %d was not stored and could be refused", i)
			}
		}
	})
}

func TestLeast(t *testing.T) {
	for _, c := range []struct {
		name  string
		parts []Part
		want  uint64
	}{
		{"nothing", nil, 0},
		{"side by side", []Part{{Range{0, 3}, 2}, {Range{4, 7}, 3}}, 5},
		{"the same again", []Part{{Range{0, 3}, 2}, {Range{0, 3}, 2}}, 2},
		{"the same again, and one row has come under another class", []Part{{Range{0, 3}, 2}, {Range{0, 3}, 1}}, 2},
		{"again within other bounds", []Part{{Range{0, 1}, 2}, {Range{2, 3}, 2}, {Range{4, 5}, 2}, {Range{2, 4}, 3}, {Range{5, 6}, 2}}, 7},
		{"one read again in the middle", []Part{{Range{0, 9}, 10}, {Range{4, 5}, 2}}, 10},
		{"which of them came twice cannot be told", []Part{{Range{0, 5}, 3}, {Range{4, 9}, 4}}, 4},
	} {
		if got := Least(c.parts); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

// Ingesters that take over from one another, each where the ledger ended when it came,
// and go on writing although another has: of every cell each row is counted once.
func TestLeastIsExactWhereIngestersTakeOver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 40).Draw(t, "the cell of each offset")
		parts := make([][]Part, 3)
		want := make([]uint64, 3)
		end := 0
		for range rapid.IntRange(1, 6).Draw(t, "ingesters") {
			at := end
			for range rapid.IntRange(0, 6).Draw(t, "batches") {
				next := min(at+rapid.IntRange(1, 9).Draw(t, "offsets"), len(rows))
				if at == next {
					break
				}
				found := make([]uint64, 3)
				for _, cell := range rows[at:next] {
					found[cell]++
				}
				for cell, n := range found {
					if n > 0 {
						parts[cell] = append(parts[cell], Part{Range{int64(at), int64(next - 1)}, n})
					}
				}
				at = next
			}
			end = max(end, at)
		}
		for _, cell := range rows[:end] {
			want[cell]++
		}
		for cell := range parts {
			if got := Least(parts[cell]); got != want[cell] {
				t.Fatalf("cell %d of %v in %v: got %d, want %d", cell, rows, parts[cell], got, want[cell])
			}
		}
	})
}
