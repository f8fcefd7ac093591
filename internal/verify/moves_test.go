package verify

import (
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// kept is how long every class is kept, in buckets of days.
type kept time.Duration

func (k kept) End(from time.Time) time.Time { return from.Add(time.Duration(k)) }
func (k kept) Bucket(from time.Time) int32  { return int32(from.Unix() / 86400) }

const hour = time.Hour

var noon = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// at is an instant as an override.
func at(d time.Duration) uint32 { return uint32(noon.Add(d).Unix()) }

// done is a step of a sweep that was done then, open one of a sweep that was not.
func done(from, to uint32, when time.Duration) ledger.Step {
	return ledger.Step{From: from, To: to, Done: true, At: noon.Add(when)}
}

func open(from, to uint32, when time.Duration) ledger.Step {
	return ledger.Step{From: from, To: to, At: noon.Add(when)}
}

func TestFate(t *testing.T) {
	// Rows of the first of March, kept for nine days: they may go from midnight on.
	c := &check{o: Options{Period: func(string) Period { return kept(9 * day) }, Grace: hour}, began: noon, ended: noon}
	own := noon.Add(-12 * hour)
	cell := ledger.Cell{Table: "t", Retention: "r", Day: int32(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Unix() / 86400)}
	for _, x := range []struct {
		name    string
		steps   []ledger.Step
		carries []uint32
		first   time.Time // until then it is there
	}{
		{"held before its period was over", []ledger.Step{done(0, at(90*hour), -20*hour)}, []uint32{at(90 * hour)}, noon.Add(90 * hour)},
		{"held when its period was over", []ledger.Step{done(0, at(90*hour), -hour)}, []uint32{at(90 * hour)}, own},
		{"erased", []ledger.Step{done(0, 1, -20*hour)}, []uint32{1}, time.Unix(1, 0)},
		{"planned", []ledger.Step{open(0, at(90*hour), -20*hour)}, []uint32{0, at(90 * hour)}, own},
		{"planned to go", []ledger.Step{open(at(90*hour), 1, -20*hour)}, []uint32{at(90 * hour), 1}, time.Unix(1, 0)},
		{"held and released", []ledger.Step{done(0, at(90*hour), -40*hour), done(at(90*hour), 0, -20*hour)}, []uint32{0}, own},
		{"moved on", []ledger.Step{done(0, at(2*hour), -20*hour), done(at(2*hour), at(3*hour), -19*hour)}, []uint32{at(3 * hour)}, noon.Add(3 * hour)},
		{"moved, and one more planned", []ledger.Step{done(0, at(2*hour), -20*hour), open(at(2*hour), at(3*hour), -19*hour)},
			[]uint32{at(2 * hour), at(2 * hour), at(3 * hour)}, noon.Add(2 * hour)},
		{"planned, overtaken, moved", []ledger.Step{open(0, 1, -20*hour), done(0, at(3*hour), -19*hour)}, []uint32{at(3 * hour)}, noon.Add(3 * hour)},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := c.fate(&ledger.Move{Delivery: ledger.Delivery{Cell: cell}, Steps: x.steps})
			if !slices.Equal(f.carries, x.carries) || !f.first.Equal(x.first) {
				t.Errorf("got %v until %s, want %v until %s", f.carries, f.first.UTC(), x.carries, x.first)
			}
		})
	}
}

func TestTheGraceBeginsWithTheMove(t *testing.T) {
	c := &check{o: Options{Period: func(string) Period { return kept(9 * day) }, Grace: hour}, began: noon, ended: noon}
	cell := ledger.Cell{Table: "t", Retention: "r", Day: int32(noon.Add(-12*day).Unix() / 86400)}
	for _, x := range []struct {
		name  string
		steps []ledger.Step
		now   uint32 // what the row carries
		want  bool
	}{
		{"erased an hour ago", []ledger.Step{done(0, 1, -hour)}, 1, true},
		{"erased within the grace", []ledger.Step{done(0, 1, -hour+time.Second)}, 1, false},
		{"over an hour ago", []ledger.Step{done(0, at(-hour), -3*hour)}, at(-hour), true},
		{"over within the grace", []ledger.Step{done(0, at(-hour)+1, -3*hour)}, at(-hour) + 1, false},
		{"not over", []ledger.Step{done(0, at(hour), -3*hour)}, at(hour), false},
		{"released an hour ago, its period over", []ledger.Step{done(0, at(hour), -30*hour), done(at(hour), 0, -hour)}, 0, true},
		{"released within the grace, its period over", []ledger.Step{done(0, at(hour), -30*hour), done(at(hour), 0, -time.Minute)}, 0, false},
		{"planned, and where it was", []ledger.Step{open(0, at(hour), -3*hour)}, 0, true},
		{"planned to go an hour ago, and moved", []ledger.Step{open(0, 1, -hour)}, 1, true},
		{"planned to go just now, and moved", []ledger.Step{open(0, 1, 0)}, 1, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			if got := c.tardy(&ledger.Move{Delivery: ledger.Delivery{Cell: cell}, Steps: x.steps}, x.now); got != x.want {
				t.Errorf("got %v, want %v", got, x.want)
			}
		})
	}
}
