package main

import (
	"slices"
	"strings"
	"time"
)

// verdict is what the sentences say of one row at one instant.
type verdict struct {
	reader, officer, bytes claim
}

// claim is what must be true.
type claim uint8

const (
	may claim = iota // the sentences leave it open
	must
	mustNot
)

// oracle knows what happened and what the sentences say, and nothing of the
// program. It is asked of each row in the order of time.
type oracle struct {
	policy   string
	facts    map[string][]*happening // that have arrived, by account, workspace and organization, in order of time
	requests []request               // that were made
}

func newOracle(policy string) *oracle {
	return &oracle{policy: policy, facts: make(map[string][]*happening)}
}

// learn takes what moves periods, when it arrives.
func (o *oracle) learn(h *happening) {
	for _, subject := range []string{h.person, h.workspace, h.org} {
		if subject == "" {
			continue
		}
		known := o.facts[subject]
		i := 0
		for i < len(known) && !known[i].at.After(h.at) {
			i++
		}
		o.facts[subject] = slices.Insert(known, i, h)
	}
}

// watched is one row under the oracle's eyes.
type watched struct {
	*happening
	promise
	from   time.Time // the period counts from it
	stored bool      // it has arrived and had to be stored
	lost   bool      // at some instant its bytes could have gone

	people, subjects []string

	// members are those whose identity goes from the row while it stays: for each the
	// row as it would be if it were theirs alone, since so long it may name them.
	members []*watched
}

func (o *oracle) watch(h *happening) *watched {
	w := &watched{happening: h, from: h.at, people: h.people(), subjects: h.subjects()}
	w.promise, w.stored = promises[o.policy](h)
	if h.at.After(h.arrives.Add(5 * time.Minute)) {
		w.from = h.arrives
	}
	if end := w.keep.after(w.from); w.keep.is() && !h.arrives.Before(end) { // on time it would be gone, or held
		w.stored = w.stored && slices.ContainsFunc(o.requests, func(r request) bool {
			return !r.erase && touches(r, w) && r.at.Before(end) && (r.until.IsZero() || h.arrives.Before(r.until))
		})
	}
	w.lost = !w.stored
	if w.shared && len(w.people) > 1 {
		for _, p := range w.people {
			alone := *w
			alone.people = []string{p}
			w.members = append(w.members, &alone)
		}
	}
	return w
}

// there is when it had come: a clock that is ahead makes nobody new of what was there.
func (h *happening) there() time.Time { return earlier(h.at, h.arrives) }

var forever = time.Date(2105, time.December, 31, 0, 0, 0, 0, time.UTC)

// bounds are the instants at which a row's state changes, by all that is known.
type bounds struct {
	hidden time.Time // from then on for officers only
	kept   time.Time // until then the bytes are there
	ends   time.Time // from then on for nobody
	over   time.Time // by then the bytes are gone
	held   bool
	erased bool

	members []bounds // of the identity of each of the row's members
}

// bounds works out the promise of a row with all that the oracle has learned. The rest
// of a shared row is for everybody while one of its members is.
func (o *oracle) bounds(w *watched, now time.Time) (b bounds) {
	if w.members == nil {
		return o.alone(w, now)
	}
	b.erased = true
	for _, m := range w.members {
		one := o.alone(m, now)
		b.members = append(b.members, one)
		b.hidden, b.kept = later(b.hidden, earlier(one.hidden, one.ends)), later(b.kept, one.kept)
		b.ends, b.over = later(b.ends, one.ends), later(b.over, one.over)
		b.held, b.erased = one.held, b.erased && one.erased // a hold is on all of the row
	}
	return b
}

// alone is for a row as if it were one person's.
func (o *oracle) alone(w *watched, now time.Time) bounds {
	b := bounds{hidden: forever, kept: forever, ends: forever, over: forever}
	if w.keep.is() {
		b.kept = w.keep.after(w.from)
		b.ends, b.over = b.kept, b.kept.Add(grace)
	}
	for _, f := range o.facts[w.org] {
		period, listed := byPlan(f.tier, 0)
		if w.plan && f.action == "plan.changed" && listed && !f.at.Before(w.from) {
			if end := period.after(w.from); end.Before(b.kept) {
				b.kept, b.ends, b.over = end, end, later(end, f.arrives).Add(grace)
			}
		}
	}
	if w.anchor != "" {
		if began, end, ok := o.anchored(w); ok && w.within {
			b.hidden, b.kept, b.over = began, earlier(b.kept, end.Add(-grace)), earlier(b.over, end)
			if w.atLeast.is() {
				least := w.atLeast.after(w.from)
				b.kept, b.over = later(b.kept, least), later(b.over, least.Add(grace))
			}
			b.ends = earlier(b.ends, b.over)
		} else if ok {
			b.kept, b.ends, b.over = end, end, end.Add(grace)
		}
	}
	var released time.Time
	for _, r := range o.requests {
		switch {
		case !touches(r, w):
		case !r.erase && (r.until.IsZero() || now.Before(r.until)):
			b.held = true
		case !r.erase:
			released = later(released, r.until)
		case w.there().After(r.at), w.others(r): // it is about somebody new, or another one
		case !w.law:
			b.erased = true
			b.kept, b.ends = earlier(b.kept, r.at), earlier(b.ends, r.at)
			b.over = earlier(b.over, erasedWithin(o.policy).after(r.at))
		default:
			b.hidden = earlier(b.hidden, r.at)
			if w.atLeast.is() { // the law is the one reason to keep it
				least := later(w.atLeast.after(w.from), r.at)
				b.kept, b.ends, b.over = earlier(b.kept, least), earlier(b.ends, least), earlier(b.over, least.Add(grace))
			}
		}
	}
	b.over = later(b.over, released.Add(grace)) // a release resumes the clock
	return b
}

// instants adds both sides of every change of a row within a segment to the
// segment's own instants, in order.
func (b bounds) instants(seg *segment, at []time.Time) []time.Time {
	at = slices.Clone(at)
	edges := []time.Time{b.hidden, b.kept, b.ends, b.over}
	for _, m := range b.members {
		edges = append(edges, m.hidden, m.kept, m.ends, m.over)
	}
	for _, edge := range edges {
		for _, t := range []time.Time{edge.Add(-time.Second), edge} {
			if t.After(seg.from) && t.Before(seg.to) {
				at = append(at, t)
			}
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return slices.CompactFunc(at, time.Time.Equal)
}

// judge says what must be true of a row at an instant. Instants MUST NOT go back.
func (w *watched) judge(b bounds, now time.Time) verdict {
	if !w.stored {
		return verdict{mustNot, mustNot, mustNot}
	}
	v := verdict{reader: between(now, earlier(b.kept, b.ends), b.ends), officer: between(now, b.kept, b.ends), bytes: between(now, b.kept, b.over)}
	if !now.Before(b.hidden) {
		v.reader = mustNot
	}
	if b.held { // it stays, for officers
		v.officer, v.bytes = must, must
		if b.erased {
			v.reader = mustNot
		}
	}
	w.lost = w.lost || v.bytes != must
	if w.lost { // what could go needs not come back
		for _, c := range []*claim{&v.reader, &v.officer, &v.bytes} {
			if *c == must {
				*c = may
			}
		}
	}
	return v
}

// between says: must before the first instant, must not from the second on.
func between(now, first, second time.Time) claim {
	switch {
	case now.Before(first):
		return must
	case now.Before(second):
		return may
	}
	return mustNot
}

// anchored returns when what a row hangs on came to its end, and when the row does.
func (o *oracle) anchored(w *watched) (began, end time.Time, ok bool) {
	for _, s := range o.hangsOn(w) {
		if b, e, is := o.story(w, s); is && (!ok || e.Before(end)) {
			began, end, ok = b, e, true
		}
	}
	return began, end, ok
}

// hangsOn names what the row's promise is about: everybody in it where all must be
// gone, and one account where it is kept: to whom it was done, whose thing it was
// done to, for whom, or by whom.
func (o *oracle) hangsOn(w *watched) []string {
	switch {
	case w.anchor == "workspace.deleted":
		return []string{w.workspace}
	case w.within:
		return w.people
	}
	return w.people[:1]
}

// story reads the history of an account or a workspace: deleted, restored in time
// or too late, and deleted again.
func (o *oracle) story(w *watched, subject string) (began, end time.Time, ok bool) {
	for _, f := range o.facts[subject] {
		switch f.action {
		case "account.restored", "account.created", "workspace.restored":
			if ok && !f.at.Before(end) && w.from.Before(f.at) {
				return began, end, true // over before it came back
			}
			ok = false
		case "account.deletion_requested":
			if w.anchor == f.action && !ok {
				began, end, ok = f.at, w.after.after(f.at), true
			}
		case "account.deleted", "workspace.deleted":
			// Who deletes an account has asked for it, by that at the latest.
			asked := f.action == "account.deleted" && w.anchor == "account.deletion_requested"
			if (w.anchor == f.action || asked) && !ok {
				began, end, ok = f.at, w.after.after(f.at), true
			}
		}
	}
	return began, end, ok
}

func touches(r request, w *watched) bool {
	return slices.ContainsFunc(w.subjects, func(s string) bool { return slices.Contains(r.subjects, s) })
}

// others reports whether a request names only people whose the row is not.
func (w *watched) others(r request) bool {
	return !slices.ContainsFunc(w.subjects, func(s string) bool {
		person, is := strings.CutPrefix(s, "user:")
		return slices.Contains(r.subjects, s) && (!is || slices.Contains(w.people, person))
	})
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
