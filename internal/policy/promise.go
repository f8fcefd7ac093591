package policy

import (
	"fmt"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// ShortestPromise returns the age that a copy of any event of the kinds MUST NOT
// reach outside the tables, such as in a queue, and the promise that says so. It
// is the shortest of
//
//   - every period of every class that a rule gives to such events: those that
//     count from the event, and those that count from an anchor, because the
//     anchor can come right after the event;
//   - the time in which the primary systems are clean after an erasure;
//   - the time in which the data of a minor is removed.
//
// A month counts as 28 days and a year as 365. A statute that lets rows stay does not make it longer: it
// speaks of the rows. The result is zero where the policy has no rule for the kinds.
func (p *Policy) ShortestPromise(kinds ...event.Kind) (under time.Duration, promise string) {
	least := func(q Period, format string, args ...any) {
		d := time.Duration(q.least()) * 24 * time.Hour
		if d > 0 && (under == 0 || d < under) {
			under, promise = d, fmt.Sprintf(format, args...)
		}
	}
	for _, k := range kinds {
		for i := range p.rules[k] {
			p.rules[k][i].class.promises(least)
		}
	}
	if under == 0 {
		return 0, ""
	}
	least(p.Primary, "erased from the primary systems within %s", p.Primary)
	least(p.Minors.Within, "a minor's data removed within %s", p.Minors.Within)
	return under, promise
}

// promises calls f with each period that the class promises.
func (c *class) promises(f func(p Period, format string, args ...any)) {
	switch {
	case c.tiers != nil:
		for _, t := range c.tiers {
			f(t.period, "class %s of tier %s: %s", c.name, t.name, t.period)
		}
	case c.within:
		f(c.keep, "class %s: within %s of %s", c.name, c.keep, c.from)
	default:
		f(c.keep, "class %s: %s from %s", c.name, c.keep, c.from)
	}
	if c.without != nil {
		f(*c.without, "class %s without what it counts from: %s", c.name, *c.without)
	}
	if c.sooner != nil {
		f(c.sooner.within, "class %s: within %s of %s", c.name, c.sooner.within, c.sooner.from)
	}
}
