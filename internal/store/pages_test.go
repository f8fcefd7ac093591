package store

import (
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// crowd makes random rows with few distinct times, sources, ids, people and
// organizations, so that ties and repeats are common, over 40 days.
func crowd(random *rand.Rand, n int) (rows []*event.Row) {
	for i := range n {
		kind := event.Kind(random.IntN(event.NumKinds))
		at := now.Add(-time.Duration(random.IntN(40)) * 37 * time.Millisecond)
		if random.IntN(2) == 0 {
			at = now.Add(-time.Duration(random.IntN(40)) * 24 * time.Hour)
		}
		r := newRow(kind, []string{usage, "support@3y"}[random.IntN(2)], fmt.Sprintf("id-%d", random.IntN(max(2, n/20))), at)
		r.Source = []string{"/svc/a", "/svc/b", "/svc/ü"}[random.IntN(3)]
		r.Offset = int64(i)
		r.ReceivedAt = at.Add(time.Duration(random.IntN(1000)) * time.Millisecond)
		user := fmt.Sprintf("u_%d", random.IntN(5))
		r.Text[event.TUserID] = user
		r.SubjectKeys = []string{"user:" + user, fmt.Sprintf("device:d_%d", random.IntN(3))}
		r.Text[event.TOrganization] = fmt.Sprintf("org_%d", random.IntN(3))
		r.Text[event.TCountry] = []string{"DE", "FR", ""}[random.IntN(3)]
		r.TraceID = [16]byte{15: byte(1 + random.IntN(3))}
		if kind == event.Request {
			r.Number[event.NStatus] = float64(200 + random.IntN(2))
		} else {
			r.Text[event.TAction] = []string{"a.b", "a.c"}[random.IntN(2)]
			r.Text[event.TOutcome] = []string{"success", "failure"}[random.IntN(2)]
		}
		if random.IntN(10) == 0 {
			r.ExpiresOverride = uint32(now.Add(time.Duration(1+random.IntN(3)) * 100 * time.Hour).Unix())
		}
		rows = append(rows, r)
		if random.IntN(3) == 0 { // delivered again, under other offsets
			for range 1 + random.IntN(3) {
				again := *r
				again.Offset += int64(n * (1 + random.IntN(5)))
				again.ReceivedAt = r.ReceivedAt.Add(time.Minute)
				rows = append(rows, &again)
			}
		}
	}
	return rows
}

// expires is what the policies' classes in crowd promise.
func expires(r *event.Row) time.Time {
	if r.ExpiresOverride > 0 {
		return time.Unix(int64(r.ExpiresOverride), 0)
	}
	years := map[string]int{usage: 2, "support@3y": 3}[r.Retention]
	return r.RetainedFrom.AddDate(years, 0, 0)
}

// matches is the filter in plain Go.
func matches(f event.Filter, r *event.Row) bool {
	has := func(want, got string) bool { return want == "" || want == got }
	any := len(f.Subjects) == 0
	for _, s := range f.Subjects {
		any = any || slices.Contains(r.SubjectKeys, s)
	}
	return any && (f.Kinds == 0 || f.Kinds.Has(r.Kind)) &&
		!r.OccurredAt.Before(f.From) && r.OccurredAt.Before(f.To) &&
		(f.Ceiling.IsZero() || !r.ReceivedAt.After(f.Ceiling)) &&
		has(f.Tenant, r.Text[event.TOrganization]) && has(f.Organization, r.Text[event.TOrganization]) &&
		has(f.User, r.Text[event.TUserID]) && has(f.Action, r.Text[event.TAction]) && has(f.Outcome, r.Text[event.TOutcome]) &&
		has(f.Country, r.Text[event.TCountry]) && (f.Status == 0 || float64(f.Status) == r.Number[event.NStatus]) &&
		(f.TraceID == [16]byte{} || f.TraceID == r.TraceID)
}

// wanted is what all pages together must be: a full sort in Go.
func wanted(f event.Filter, rows []*event.Row) (live []event.Position, past [event.NumKinds]event.Withheld) {
	expired := make(map[event.Position]bool)
	for _, r := range rows {
		if !matches(f, r) {
			continue
		}
		if expires(r).After(f.Now) {
			if f.Visible != nil && !f.Visible(r) {
				continue
			}
			live = append(live, position(r))
		} else if p := position(r); !expired[p] {
			expired[p] = true
			past[r.Kind].PastExpiry++
		}
	}
	slices.SortFunc(live, compare)
	return slices.Compact(live), past
}

func TestPagesEqualAFullSort(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	random := rand.New(rand.NewPCG(7, 7))
	rows := crowd(random, 800)
	for chunk := range slices.Chunk(rows, 500) { // several unmerged parts
		insert(t, s, chunk...)
	}
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	nonEmpty := 0
	for i := range 25 {
		f := event.Filter{From: now.Add(-50 * 24 * time.Hour), To: now.Add(time.Hour), Now: now}
		f.Kinds = event.KindSet(random.IntN(8))
		if random.IntN(2) == 0 {
			f.From = now.Add(-time.Duration(random.IntN(40*24)) * time.Hour)
			f.To = now.Add(-time.Duration(random.IntN(1000)) * time.Millisecond / 2)
		}
		f.Now = now.Add(time.Duration(random.IntN(400)) * time.Hour)
		f.Country, f.Action, f.Outcome = pick("", "", "DE"), pick("", "", "", "a.b"), pick("", "", "", "success")
		f.Tenant, f.Organization, f.User = pick("", "", "org_1"), pick("", "", "org_1"), pick("", "", "", "u_1")
		switch random.IntN(8) {
		case 0:
			f.Subjects = []string{"user:u_1"}
		case 1:
			f.Subjects = []string{"user:u_1", "device:d_2", "user:nobody"}
		case 2:
			f.Status = 201
		case 3:
			f.TraceID = [16]byte{15: 2}
		case 4:
			f.Ceiling = now.Add(-time.Duration(random.IntN(100)) * time.Hour)
		}
		if i%2 == 1 {
			f.Visible = oneIn([]uint32{2, 20}[random.IntN(2)])
		}
		want, past := wanted(f, rows)
		size := 10 + random.IntN(150)
		if i%10 == 0 {
			size = 1 + random.IntN(3)
		}
		var got []event.Position
		var after *event.Position
		for {
			page, err := s.Events(ctx, f, after, size)
			if err != nil {
				t.Fatal(err)
			}
			for j := range page {
				got = append(got, position(&page[j]))
			}
			if len(page) < size {
				break
			}
			after = &got[len(got)-1]
			if len(got) > 8*size && size < 4 { // small pages: a part is enough
				want = want[:min(len(want), len(got))]
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("filter %d %+v, pages of %d: got %d rows, want %d; first difference at %d", i, f, size, len(got), len(want), difference(got, want))
		}
		if len(want) > 0 {
			nonEmpty++
		}
		counts, err := s.Withheld(ctx, f, nil)
		if err != nil {
			t.Fatal(err)
		}
		if counts != past {
			t.Errorf("filter %d: past expiry: got %v, want %v", i, counts, past)
		}
	}
	if nonEmpty < 12 {
		t.Errorf("only %d filters matched anything", nonEmpty)
	}
}

// oneIn refuses all events but one in n.
func oneIn(n uint32) func(*event.Row) bool {
	return func(r *event.Row) bool { return crc32.ChecksumIEEE([]byte(r.Source+r.ID))%n == 0 }
}

// TestRefusedRowsEndNoPage walks over more refused rows than one step reads, on to
// the one that may be seen.
func TestRefusedRowsEndNoPage(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	rows := make([]*event.Row, 20_001)
	for i := range rows {
		rows[i] = newRow(event.Kind(i%2), usage, fmt.Sprintf("id-%d", i), now.Add(-time.Duration(i)*time.Millisecond))
		rows[i].Offset = int64(i)
	}
	insert(t, s, rows...)
	last := rows[len(rows)-1].ID
	for _, limit := range []int{1, 7, 1000} {
		f := event.Filter{From: now.Add(-48 * time.Hour), To: now.Add(time.Hour), Now: now, Visible: func(r *event.Row) bool { return r.ID == last }}
		page, err := s.Events(ctx, f, nil, limit)
		if err != nil || len(page) != 1 || page[0].ID != last {
			t.Errorf("pages of %d: got %d rows and %v, want the last of all", limit, len(page), err)
		}
		f.Visible = func(*event.Row) bool { return false }
		if page, err := s.Events(ctx, f, nil, limit); err != nil || len(page) != 0 {
			t.Errorf("pages of %d: got %d rows and %v, want none", limit, len(page), err)
		}
	}
}

func difference(a, b []event.Position) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func TestSubjectRows(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	// One person of the crowd has more rows in each kind than are read ahead,
	// the others fewer.
	rows := crowd(rand.New(rand.NewPCG(8, 8)), 400)
	for i, r := range crowd(rand.New(rand.NewPCG(9, 9)), 12_000) {
		r.Offset += int64(1_000_000 + i)
		if r.Text[event.TUserID] == "u_3" {
			rows = append(rows, r)
		}
	}
	for chunk := range slices.Chunk(rows, len(rows)/2) {
		insert(t, s, chunk...)
	}
	for i, keys := range [][]string{{"user:u_2"}, {"user:u_2"}, {"user:u_2", "device:d_0"}, {"user:u_3"}, {"user:u_3"}, {"user:nobody"}, nil} {
		f := event.Filter{From: time.Time{}, To: now.Add(1000 * time.Hour), Now: now.Add(150 * time.Hour), Subjects: keys}
		if i%2 == 1 {
			f.Visible = oneIn(3)
		}
		want, _ := wanted(f, rows)
		if keys == nil {
			want = nil // no key asks for nobody, not for everybody
		}
		slices.SortFunc(want, func(a, b event.Position) int {
			if a.Kind != b.Kind {
				return int(a.Kind) - int(b.Kind)
			}
			if c := a.OccurredAt.Compare(b.OccurredAt); c != 0 {
				return c
			}
			return compare(a, b)
		})
		var got []event.Position
		for r, err := range s.SubjectRows(ctx, keys, f.Now, f.Visible) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, position(r))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %d rows, want %d; first difference at %d", keys, len(got), len(want), difference(got, want))
		}
	}
	// A reader may leave early.
	n := 0
	for _, err := range s.SubjectRows(ctx, []string{"user:u_3"}, now, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("got %d rows, want 3", n)
	}
	// And hears of an error.
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	var last error
	for _, err := range s.SubjectRows(stopped, []string{"user:u_2"}, now, nil) {
		last = err
	}
	if last == nil {
		t.Error("cancelled: got no error")
	}
}
