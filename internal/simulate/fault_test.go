package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
)

// TestWithoutFault: the system and the sentences agree.
func TestWithoutFault(t *testing.T) {
	for i, w := range []*world{newWorld(1, 16, 12), newWorld(3, 24, 12)} { // in the second a deletion is forgotten after the return that was told before it
		for _, name := range policies {
			t.Run(fmt.Sprintf("%s/%d", name, i), func(t *testing.T) {
				t.Parallel()
				got, err := dryRun(name, w, fault{})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d rows, %d row-days", got.rows, got.rowDays)
				if got.early+got.late > 0 || got.rowDays < 100*got.rows {
					t.Errorf("%d early and %d late of %d row-days: %q", got.early, got.late, got.rowDays, got.examples)
				}
			})
		}
	}
}

// without drops facts of these actions.
func without(actions ...string) func(*retention.Source) {
	return func(s *retention.Source) {
		s.Facts = slices.DeleteFunc(slices.Clone(s.Facts), func(f event.Fact) bool { return slices.Contains(actions, f.Action) })
	}
}

// each changes every promise.
func each(change func(*policy.StoredClass)) func(*retention.Source) {
	return func(s *retention.Source) {
		for i := range s.Promises {
			change(&s.Promises[i])
		}
	}
}

// longer changes a period of months before its end is reckoned.
func longer(months int) func(policy.Period, time.Time) time.Time {
	return func(p policy.Period, from time.Time) time.Time {
		if p.Months > 0 {
			p.Months += months
		}
		return p.End(from)
	}
}

// TestFaults plants mistakes, one at a time, and asks the oracle to see each where
// it would show: as an early loss or as a late survival.
func TestFaults(t *testing.T) {
	w := newWorld(1, 16, 12)
	for _, c := range []struct {
		fault
		policies []string
	}{
		{fault{name: "a month more", late: true, ttl: longer(1)}, policies},
		{fault{name: "a month less", ttl: longer(-1)}, policies},
		{fault{name: "the day is not cut to the end of the month", late: true, ttl: func(p policy.Period, from time.Time) time.Time {
			if p.Months > 0 && !p.Sentinel {
				return from.AddDate(0, p.Months, p.Days)
			}
			return p.End(from)
		}}, []string{"bstrapr"}},
		{fault{name: "days are read as hours", ttl: func(p policy.Period, from time.Time) time.Time {
			if p.Days > 0 {
				return from.Add(time.Duration(p.Days) * time.Hour)
			}
			return p.End(from)
		}}, []string{"infratrace", "daestro", "abstra", "itskode"}},
		{fault{name: "days never end", late: true, ttl: func(p policy.Period, from time.Time) time.Time {
			if p.Days > 0 {
				return policy.Sentinel
			}
			return p.End(from)
		}}, []string{"infratrace", "daestro", "abstra", "itskode"}},
		{fault{name: "the account's end is ignored", late: true, source: without("account.deleted", "account.deletion_requested")},
			[]string{"bstrapr", "infratrace", "daestro", "abstra"}},
		{fault{name: "the workspace's end is ignored", late: true, source: without("workspace.deleted")}, []string{"bstrapr", "abstra", "itskode"}},
		{fault{name: "the account's return is lost", source: without("account.restored")}, []string{"bstrapr", "infratrace", "daestro", "abstra"}},
		{fault{name: "the workspace's return is lost", source: without("workspace.restored")}, []string{"bstrapr", "abstra", "itskode"}},
		{fault{name: "facts count from their arrival", late: true, source: func(s *retention.Source) {
			s.Facts = slices.Clone(s.Facts)
			for i := range s.Facts {
				s.Facts[i].OccurredAt = s.Facts[i].ReceivedAt
			}
		}}, []string{"bstrapr", "infratrace", "daestro", "abstra"}},
		{fault{name: "within is taken for keep", late: true, source: each(func(c *policy.StoredClass) { c.Within = false })}, []string{"infratrace", "daestro"}},
		{fault{name: "keep is taken for within", source: each(func(c *policy.StoredClass) { c.Within = c.Anchor != "" })}, []string{"bstrapr", "abstra", "itskode"}},
		{fault{name: "the grace is doubled", grace: grace}, []string{"infratrace", "daestro"}},
		{fault{name: "there is no grace", late: true, grace: -grace - time.Second}, []string{"infratrace", "daestro"}},
		{fault{name: "an anchored row never ends", late: true, source: each(func(c *policy.StoredClass) {
			if c.Anchor != "" {
				c.After = policy.Period{Sentinel: true}
			}
		})}, policies},
		{fault{name: "the statute is ignored", source: each(func(c *policy.StoredClass) { c.AtLeast = policy.Period{} })}, []string{"infratrace"}},
		{fault{name: "an erasure takes what the law keeps", source: each(func(c *policy.StoredClass) { c.Erasable = true })},
			[]string{"bstrapr", "infratrace", "abstra", "itskode"}},
		{fault{name: "erasures are ignored", late: true, source: func(s *retention.Source) { s.Erasures = nil }}, policies},
		{fault{name: "an erasure goes on", source: func(s *retention.Source) {
			for i := range s.Erasures {
				s.Erasures[i].Until = policy.Sentinel
			}
		}}, policies},
		{fault{name: "holds are ignored", source: func(s *retention.Source) { s.Holds = nil }}, policies},
		{fault{name: "releases are ignored", late: true, source: func(s *retention.Source) {
			for i := range s.Holds {
				s.Holds[i].ReleasedAt = time.Time{}
			}
		}}, policies},
		{fault{name: "what comes late is not held", fate: func(f *retention.Fate) { f.Since = policy.Sentinel }}, []string{"abstra", "itskode"}},
		{fault{name: "what comes late is held by a later hold", late: true, fate: func(f *retention.Fate) { f.Since = begin }}, []string{"abstra", "itskode"}},
		{fault{name: "the tier is wrong", event: func(e *event.Event) {
			if e.Text[event.PlanTier] == "enterprise" {
				e.Set(event.PlanTier, "pro")
			}
		}}, []string{"daestro", "itskode"}},
		{fault{name: "an unknown tier is guessed", late: true, event: func(e *event.Event) {
			if e.Text[event.PlanTier] == "gold" {
				e.Set(event.PlanTier, "pro")
			}
		}}, []string{"daestro", "itskode"}},
		{fault{name: "a smaller plan is ignored", late: true, source: without("plan.changed")}, []string{"daestro", "itskode"}},
		{fault{name: "a larger plan counts as well", source: func(s *retention.Source) {
			s.Facts = slices.Clone(s.Facts)
			for i := range s.Facts {
				if s.Facts[i].Action == "plan.changed" {
					s.Facts[i].Tier = "free"
				}
			}
		}}, []string{"daestro", "itskode"}},
		{fault{name: "a shared row goes with the first of its people", source: func(s *retention.Source) {
			s.Promises = slices.DeleteFunc(s.Promises, func(c policy.StoredClass) bool { return event.Original(c.Key) != c.Key })
		}}, []string{"infratrace"}},
		{fault{name: "one who is erased hides what a law keeps from the others", source: func(s *retention.Source) {
			without("account.deleted")(s) // so that nobody but the erased is taken for all
			s.Promises = slices.DeleteFunc(s.Promises, func(c policy.StoredClass) bool { return event.Original(c.Key) != c.Key && !c.Erasable })
		}}, []string{"infratrace"}},
		{fault{name: "the identity stays in a shared row", late: true, fate: func(f *retention.Fate) { f.Leaving = nil }}, []string{"infratrace"}},
		{fault{name: "an identity goes at once", fate: func(f *retention.Fate) {
			for i := range f.Leaving {
				f.Leaving[i].At = begin
			}
		}}, []string{"infratrace"}},
		{fault{name: "the category is lost", late: true, event: func(e *event.Event) { e.Text[event.DataCategory] = "" }}, []string{"daestro", "abstra", "itskode"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, name := range c.policies {
				got, err := dryRun(name, w, c.fault)
				if err != nil {
					t.Fatal(err)
				}
				if c.late && got.late == 0 || !c.late && got.early == 0 {
					t.Errorf("%s: the oracle saw %d early and %d late: %q", name, got.early, got.late, got.examples)
				}
			}
		})
	}
}
