package ingest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lethe-audit/lethe/internal/verify"
)

// told is one sweep's word on one delivery.
type told struct {
	sweep    int
	from, to int64
}

// history is what became of the deliveries of a filled stack, by offset.
type history struct {
	period time.Duration
	done   map[int]int // sweep: hours from now at which it was; without it is open
	told   map[int][]told
	gone   map[int]bool
	carry  map[int]int64
}

// late hours are when the proof of a history runs, and the grace is an hour.
const lateHours = 10

// histories are of rows that the engine itself lets live: all expiries are to come.
func histories(now time.Time) *rapid.Generator[history] {
	at := func(hours int) int64 { return now.Add(time.Duration(hours)*time.Hour + 30*time.Minute).Unix() }
	return rapid.Custom(func(t *rapid.T) history {
		h := history{
			period: rapid.SampledFrom([]time.Duration{1000 * time.Hour, 45 * time.Hour, 25 * time.Hour}).Draw(t, "period"),
			done:   make(map[int]int), told: make(map[int][]told), gone: make(map[int]bool), carry: make(map[int]int64),
		}
		for sweep := 1; sweep <= 3; sweep++ {
			if rapid.Bool().Draw(t, "done") {
				h.done[sweep] = rapid.SampledFrom([]int{-60, 0, lateHours}).Draw(t, "when")
			}
		}
		calm := rapid.Bool().Draw(t, "calm") // most rows are as they should be
		for o := range 40 {
			possible := []int64{0}
			for sweep := 1; sweep <= 3; sweep++ {
				if rapid.IntRange(0, 3).Draw(t, "takes part") > 0 {
					continue
				}
				s := told{sweep: sweep, from: rapid.SampledFrom(possible).Draw(t, "from")}
				s.to = rapid.SampledFrom([]int64{0, at(1), at(lateHours - 1), at(1000), never}).Draw(t, "to")
				h.told[o] = append(h.told[o], s)
				if _, ok := h.done[sweep]; ok {
					possible = nil
				}
				possible = append(possible, s.to)
			}
			h.carry[o] = rapid.SampledFrom(possible).Draw(t, "carries")
			if !calm || rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
				h.gone[o] = rapid.Bool().Draw(t, "gone")
				if rapid.IntRange(0, 4).Draw(t, "altered") == 0 {
					h.carry[o] = at(500)
				}
			}
		}
		return h
	})
}

// finding is what the rules say of one delivery, whose class lets it go between two instants.
func (h *history) finding(o int, first, last, now time.Time) string {
	expires := func(override int64) (time.Time, time.Time) {
		if override == 0 {
			return first, last
		}
		return time.Unix(override, 0), time.Unix(override, 0)
	}
	// Where the row may be, when it came there, and from when on it need not be there.
	may, came := []int64{0}, map[int64]time.Time{}
	var free []time.Time
	for _, s := range h.told[o] {
		hours, done := h.done[s.sweep]
		when := now.Add(time.Duration(hours-lateHours) * time.Hour)
		if !done {
			when = now.Add(-lateHours * time.Hour) // it was planned then
		} else {
			may, free = nil, nil
			if e, _ := expires(s.from); !e.After(when) {
				free = append(free, e)
			}
		}
		may = append(may, s.to)
		if when.After(came[s.to]) {
			came[s.to] = when
		}
	}
	if h.gone[o] {
		for _, override := range may {
			e, _ := expires(override)
			free = append(free, e)
		}
		if slices.MinFunc(free, time.Time.Compare).After(now) {
			return "missing"
		}
		return ""
	}
	if !slices.Contains(may, h.carry[o]) {
		return "moved"
	}
	_, end := expires(h.carry[o])
	if when := came[h.carry[o]]; when.After(end) {
		end = when
	}
	if !end.Add(time.Hour).After(now) {
		return "late"
	}
	return ""
}

// live makes a stack what the history says.
func (s *stack) live(h *history) {
	s.t.Helper()
	pick := func(f func(o int) (int64, bool)) (offsets, values string) {
		var os, vs []string
		for o := range 40 {
			if v, ok := f(o); ok {
				os, vs = append(os, strconv.Itoa(o)), append(vs, fmt.Sprintf("toUInt32(%d)", v))
			}
		}
		return strings.Join(os, ","), strings.Join(vs, ",")
	}
	for sweep := 1; sweep <= 3; sweep++ {
		said := func(o int) (told, bool) {
			at := slices.IndexFunc(h.told[o], func(x told) bool { return x.sweep == sweep })
			if at < 0 {
				return told{}, false
			}
			return h.told[o][at], true
		}
		offsets, to := pick(func(o int) (int64, bool) { x, ok := said(o); return x.to, ok })
		_, from := pick(func(o int) (int64, bool) { x, ok := said(o); return x.from, ok })
		if offsets != "" {
			s.enter(sweep, 0, "src_offset IN ("+offsets+")", fmt.Sprintf("transform(src_offset, [%s], [%s], 0) AS to_override", offsets, to),
				fmt.Sprintf("transform(src_offset, [%s], [%s], 0) AS from_override", offsets, from))
		}
		if hours, ok := h.done[sweep]; ok {
			s.land(sweep, -time.Duration(hours)*time.Hour)
		}
	}
	s.query("SYSTEM START MERGES request_events")
	offsets, carried := pick(func(o int) (int64, bool) { return h.carry[o], true })
	s.query("ALTER TABLE request_events UPDATE expires_override = transform(src_offset, [%s], [%s], 0) WHERE 1 SETTINGS mutations_sync = 2", offsets, carried)
	if gone, _ := pick(func(o int) (int64, bool) { return 0, h.gone[o] }); gone != "" {
		s.vanish("src_offset IN (" + gone + ")")
	}
}

// TestVerifyAgreesWithTheRules lives through histories and compares the proof with
// what the rules say of each delivery alone.
func TestVerifyAgreesWithTheRules(t *testing.T) {
	all := filled(t)
	all.save()
	days := make(map[int]time.Time) // of retained_from
	for line := range strings.Lines(all.query("SELECT src_offset, toUnixTimestamp(toStartOfDay(retained_from)) FROM request_events")) {
		var o int
		var at int64
		if _, err := fmt.Sscan(line, &o, &at); err != nil {
			t.Fatal(err)
		}
		days[o] = time.Unix(at, 0)
	}
	kinds := make(map[string]int)
	for seed := range 10 {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			s := *all
			s.t = t
			s.restore()
			h := histories(time.Now()).Example(seed)
			s.live(&h)
			now := time.Now().Add(lateHours * time.Hour)
			want, got := make(map[string][]int), make(map[string][]int)
			for _, o := range slices.Sorted(maps.Keys(days)) {
				if kind := h.finding(o, days[o].Add(h.period), days[o].Add(24*time.Hour-time.Second+h.period), now); kind != "" {
					want[kind] = append(want[kind], o)
				}
			}
			r := s.verify(func(o *verify.Options) {
				everything(o)
				o.Now, o.Period = func() time.Time { return now }, func(string) verify.Period { return kept(h.period) }
			})
			for _, f := range r.Findings {
				for o := f.First; o <= f.Last; o++ {
					// A range of late rows may span offsets that are not there.
					if f.Kind != "late" || !h.gone[int(o)] {
						got[f.Kind] = append(got[f.Kind], int(o))
					}
				}
			}
			for kind := range want {
				slices.Sort(got[kind])
				kinds[kind]++
			}
			kinds["all"]++
			if !maps.EqualFunc(got, want, slices.Equal) {
				t.Errorf("%+v\ngot  %v\nwant %v", h, got, want)
			}
		})
	}
	for _, kind := range []string{"missing", "late", "moved"} {
		if kinds[kind] == 0 || kinds[kind] == kinds["all"] {
			t.Errorf("the histories test nothing: %v", kinds)
		}
	}
}
