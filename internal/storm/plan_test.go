package main

import (
	"reflect"
	"testing"
	"time"
)

// ciSeed is the one in .ci/run.
const ciSeed = 94

func TestPlan(t *testing.T) {
	const minute = time.Minute
	for name, c := range map[string]struct {
		seed     uint64
		duration time.Duration
		kills    int // at least
		outage   time.Duration
	}{
		"as in CI":        {ciSeed, minute, 6, 20 * time.Second},
		"by default":      {7, 5 * minute, 12, 100 * time.Second},
		"long":            {8, 30 * minute, 80, 10 * minute},
		"as short as may": {9, 30 * time.Second, 1, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			faults := plan(c.seed, c.duration)
			if again := plan(c.seed, c.duration); !reflect.DeepEqual(faults, again) {
				t.Error("the same seed gives another plan")
			}
			if other := plan(c.seed+1, c.duration); reflect.DeepEqual(faults, other) {
				t.Error("another seed gives the same plan")
			}
			kills, outage := 0, time.Duration(0)
			back := make(map[string]time.Duration)
			for i, f := range faults {
				if i > 0 && f.at < faults[i-1].at {
					t.Errorf("fault %d is before the one before it", i)
				}
				if since, ok := back[f.process]; ok && f.at < since+respite {
					t.Errorf("%s has a fault at %s and is back from the last at %s", f.process, f.at, since)
				}
				back[f.process] = f.at + f.lasts
				if f.at+f.lasts > c.duration {
					t.Errorf("%s of %s ends after the run", f.action, f.process)
				}
				if f.action == freeze && f.lasts <= sessionTimeout {
					t.Errorf("%s is frozen for %s, no longer than its session", f.process, f.lasts)
				}
				if f.action == kill {
					kills++
				}
				if f.process == clickhouse {
					outage = max(outage, f.lasts)
				}
			}
			if kills < c.kills {
				t.Errorf("got %d kills, want at least %d", kills, c.kills)
			}
			if outage != c.outage {
				t.Errorf("ClickHouse is down for %s at most, want %s", outage, c.outage)
			}
			if c.duration > 5*minute && len(back) != 5 {
				t.Errorf("the faults are of %d processes, want all 5", len(back))
			}
		})
	}
}
