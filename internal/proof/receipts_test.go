package proof

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

func (b *bench) receipts(from, to time.Time) *Receipts {
	b.t.Helper()
	p, err := New(b.options())
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := p.Receipts(b.t.Context(), b.store, from, to)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// TestReceipts lets rows expire by the clock of the receipts: what the engine has
// removed, what it has not, what was held and what was erased.
func TestReceipts(t *testing.T) {
	b := newBench(t, "itskode")
	midnight := now.Truncate(day24)
	at := func(days int, tier string) published { // at noon, days before today
		return request(now.Sub(midnight.Add(-time.Duration(days)*day24+12*time.Hour)), tier)
	}
	b.insert(at(20, "free"), at(20, "free"), at(20, "pro"), at(18, "free"), at(13, "free")) // free: 14 days, pro: 30
	day := func(days int) string { return midnight.Add(-time.Duration(days) * day24).Format(time.DateOnly) }
	r := b.receipts(midnight.Add(-100*day24), midnight)
	// A day's rows expire up to the end of that day, and the receipt waits for the grace.
	want := []Receipt{
		{"request_events", "request/free@14d", day(6), "period", 2, 0, 2},
		{"request_events", "request/free@14d", day(4), "period", 1, 0, 1},
	}
	if !slices.Equal(r.Receipts, want) || !r.OK() {
		t.Errorf("got %+v, want %+v", r.Receipts, want)
	}
	if r := b.receipts(midnight.Add(-5*day24), midnight); len(r.Receipts) != 1 || r.Receipts[0].Day != day(4) {
		t.Errorf("from a day on: got %+v", r.Receipts)
	}

	// The clock goes on: the row of 13 days before today stays, and so does that of pro.
	b.now = now.Add(20 * day24)
	r = b.receipts(midnight, midnight.Add(30*day24))
	want = []Receipt{
		{"request_events", "request/free@14d", midnight.Add(1 * day24).Format(time.DateOnly), "period", 1, 1, 0},
		{"request_events", "request/pro@30d", midnight.Add(10 * day24).Format(time.DateOnly), "period", 1, 1, 0},
	}
	if !slices.Equal(r.Receipts, want) || r.OK() {
		t.Errorf("rows that stay: got %+v, want %+v", r.Receipts, want)
	}

	// One is held, the other erased, and goes.
	move := func(tier, override, cause string) {
		b.sql("INSERT INTO retention_moves (" + moveColumns + ") SELECT 'request_events', retention_class, bucket, toDate(retained_from), src_topic, src_partition, src_offset, " +
			`xxHash64(concat(source, '\0', id, '\0', toString(src_offset))), 0, ` + override + ", '" + cause + "', 1, now64() FROM request_events WHERE plan_tier = '" + tier + "'")
		b.sql("ALTER TABLE request_events UPDATE expires_override = 4291660800 WHERE plan_tier = '" + tier + "' SETTINGS mutations_sync = 2")
	}
	move("free", "4291660800", "hold")
	move("pro", "1", "erasure")
	r = b.receipts(midnight, midnight.Add(30*day24))
	want = []Receipt{{"request_events", "request/pro@30d", midnight.Format(time.DateOnly), "erasure", 1, 1, 0}}
	if !slices.Equal(r.Receipts, want) || r.OK() {
		t.Errorf("held, and erased but there: got %+v, want %+v", r.Receipts, want)
	}
	b.sql("DELETE FROM request_events WHERE plan_tier = 'pro'")
	r = b.receipts(midnight, midnight.Add(30*day24))
	want[0].Left, want[0].Expired = 0, 1
	if !slices.Equal(r.Receipts, want) || !r.OK() {
		t.Errorf("held, and erased: got %+v, want %+v", r.Receipts, want)
	}

	var text strings.Builder
	days := "days " + midnight.Format(time.DateOnly) + " to " + day(-30) + ", each once its grace is over"
	if err := r.Print(&text); err != nil || !strings.Contains(text.String(), "1 row expired and gone, 0 rows left") || !strings.Contains(text.String(), days) {
		t.Errorf("got %v\n%s", err, &text)
	}
	document, err := r.JSON()
	var read Receipts
	if err != nil || json.Unmarshal(document, &read) != nil || !slices.Equal(read.Receipts, want) || read.Format != ReceiptsFormat || read.From != day(0) || read.To != day(-30) {
		t.Errorf("got %v\n%s", err, document)
	}
}

// TestReceiptsCountADeliveryOnce: a range that came twice is one, and so are the rows.
func TestReceiptsCountADeliveryOnce(t *testing.T) {
	b := newBench(t, "itskode")
	b.insert(request(20*day24, "free"), published{event.Security, 100 * day24, map[event.Attr]string{event.EventAction: "login", event.EventOutcome: "failure"}})
	b.sql("INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation) FROM ingest_ledger")
	r := b.receipts(now.Add(-1000*day24), now)
	if len(r.Receipts) != 2 || r.Receipts[0].Expired != 1 || r.Receipts[1].Expired != 1 {
		t.Errorf("got %+v", r.Receipts)
	}
}

// TestReceiptsCountARowOnce: another ingester took over at offset 2 and stored in other
// batches what the one before it stored as well.
func TestReceiptsCountARowOnce(t *testing.T) {
	b := newBench(t, "itskode")
	free, pro, there := request(40*day24, "free"), request(40*day24, "pro"), request(day24, "free")
	all := []published{free, pro, free, there, pro, free, free}
	for _, batch := range [][2]int64{{0, 2}, {2, 4}, {4, 6}, {2, 5}, {5, 7}} {
		b.offset = batch[0]
		b.insert(all[batch[0]:batch[1]]...)
	}
	r := b.receipts(now.Add(-100*day24), now)
	if len(r.Receipts) != 2 || r.Receipts[0].Accounted != 4 || r.Receipts[1].Accounted != 2 || !r.OK() {
		t.Errorf("four of free, two of pro: got %+v", r.Receipts)
	}
	b.now = now.Add(20 * day24)
	r = b.receipts(now, b.now)
	if len(r.Receipts) != 1 || r.Receipts[0].Accounted != 1 || r.Receipts[0].Left != 1 {
		t.Errorf("one that is there: got %+v", r.Receipts)
	}
	if got := b.prove(Ask{}).bound(t, "classes.request.keep.free"); got.Reached != 5 {
		t.Errorf("the proof: got %d that reached the limit, want 5", got.Reached)
	}
}
