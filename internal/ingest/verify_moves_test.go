package ingest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/verify"
)

const delivered = "xxHash64(concat(source, '\\0', id, '\\0', toString(src_offset)))"

// never is the expiry of what is held.
const never = 4291660800

// enter writes that a sweep will move the rows to an override. With some columns replaced it
// speaks of others.
func (s *stack) enter(sweep int, to int64, where string, replace ...string) {
	s.t.Helper()
	columns := []string{"'request_events' AS table", "retention_class", "bucket", "toDate(retained_from) AS day", "src_topic", "src_partition", "src_offset",
		delivered + " AS digest", "received_at", "expires_override AS from_override", fmt.Sprint(to, " AS to_override"), "'hold' AS cause", fmt.Sprint(sweep, " AS sweep"), "now64(3) AS planned_at"}
	for _, r := range replace {
		_, name, _ := strings.Cut(r, " AS ")
		at := slices.IndexFunc(columns, func(c string) bool { return c == name || strings.HasSuffix(c, " AS "+name) })
		columns[at] = r
	}
	s.query("INSERT INTO retention_moves (table, retention_class, bucket, day, src_topic, src_partition, src_offset, digest, received_at, from_override, to_override, cause, sweep, planned_at) SELECT %s FROM (SELECT * FROM request_events WHERE %s)",
		strings.Join(columns, ", "), where)
	s.query("INSERT INTO retention_sweeps (sweep, state, updated_at) VALUES (%d, 'planned', now64(3) - 3600000)", sweep)
}

// land says that a sweep was done some time ago.
func (s *stack) land(sweep int, ago time.Duration) {
	s.t.Helper()
	s.query("INSERT INTO retention_sweeps (sweep, state, updated_at) VALUES (%d, 'done', now64(3) - %d)", sweep, int(ago.Seconds()))
}

// carry makes rows carry an override.
func (s *stack) carry(to int64, where string) {
	s.t.Helper()
	s.query("SYSTEM START MERGES request_events")
	s.query("ALTER TABLE request_events UPDATE expires_override = %d WHERE %s SETTINGS mutations_sync = 2", to, where)
}

// move does all that a sweep does.
func (s *stack) move(sweep int, to int64, where string, ago time.Duration) {
	s.t.Helper()
	s.enter(sweep, to, where)
	s.carry(to, where)
	s.land(sweep, ago)
}

func (s *stack) vanish(where string) {
	s.t.Helper()
	s.query("SYSTEM START MERGES request_events")
	s.query("DELETE FROM request_events WHERE %s", where)
}

// in is an instant from now, as an override.
func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// after runs a proof that thinks that so much time has gone by.
func after(d time.Duration) func(*verify.Options) {
	return func(o *verify.Options) { o.Now = func() time.Time { return time.Now().Add(d) } }
}

// both changes the options twice.
func both(a, b func(*verify.Options)) func(*verify.Options) {
	return func(o *verify.Options) { a(o); b(o) }
}

// daily runs one under which every class is kept for 25 hours: that is over for the
// last batch, offsets 30 to 39, since another 25 hours.
func daily(o *verify.Options) { o.Period = func(string) verify.Period { return kept(25 * time.Hour) } }

const tenToFourteen, lastBatch = "src_offset BETWEEN 10 AND 14", "src_offset >= 30"

var moving = []struct {
	name string
	do   func(s *stack)
	run  func(*verify.Options)
	want []string
}{
	{"erased, and gone", func(s *stack) {
		s.enter(1, 1, tenToFourteen)
		s.land(1, 0)
		s.vanish(tenToFourteen)
	}, shorter, nil},
	{"erased, and there within the grace", func(s *stack) { s.move(1, in(time.Hour), tenToFourteen, 0) }, after(90 * time.Minute), nil},
	{"erased, and there after the grace", func(s *stack) { s.move(1, in(time.Hour), tenToFourteen, 0) }, after(3 * time.Hour), []string{"late lethe.request/0 10-14"}},
	{"erased lately, with an expiry long past", func(s *stack) {
		s.enter(1, 1, tenToFourteen)
		s.query("SYSTEM STOP TTL MERGES request_events")
		s.land(1, 0)
		s.vanish("src_offset BETWEEN 10 AND 13")
	}, shorter, []string{"moved lethe.request/0 14-14"}},
	{"some erased long ago, some lately, one of the former there", func(s *stack) {
		s.move(1, in(time.Hour), "src_offset BETWEEN 10 AND 12", 0)
		s.move(2, in(2*time.Hour+30*time.Minute), "src_offset BETWEEN 13 AND 14", 0)
		s.vanish("src_offset IN (10, 12, 13, 14)")
	}, after(3 * time.Hour), []string{"late lethe.request/0 11-11"}},
	{"moved to an instant that has not come, and gone", func(s *stack) {
		s.move(1, in(time.Hour), tenToFourteen, 0)
		s.vanish("src_offset IN (11, 12)")
	}, shorter, []string{"missing lethe.request/0 11-12"}},
	{"held past their period", func(s *stack) { s.move(1, never, lastBatch, 60*time.Hour) }, daily, nil},
	{"one held past its period, the others gone", func(s *stack) {
		s.move(1, never, "src_offset = 33", 60*time.Hour)
		s.vanish(lastBatch + " AND src_offset != 33")
	}, daily, nil},
	{"one held past its period, one there that is not", func(s *stack) {
		s.move(1, never, "src_offset = 33", 60*time.Hour)
		s.vanish(lastBatch + " AND src_offset NOT IN (33, 35)")
	}, daily, []string{"late lethe.request/0 35-35"}},
	{"held, but gone", func(s *stack) {
		s.move(1, never, lastBatch, 60*time.Hour)
		s.vanish("src_offset = 33")
	}, daily, []string{"missing lethe.request/0 33-33"}},
	{"held, but all gone", func(s *stack) {
		s.move(1, never, "src_offset IN (33, 34)", 60*time.Hour)
		s.vanish(lastBatch)
	}, daily, []string{"missing lethe.request/0 33-34"}},
	{"held when their period was over, and gone at the same time", func(s *stack) {
		s.enter(1, never, lastBatch)
		s.land(1, 0)
		s.vanish(lastBatch)
	}, daily, nil},
	{"planned, not done, not moved", func(s *stack) { s.enter(1, never, tenToFourteen) }, shorter, nil},
	{"planned, not done, moved in part", func(s *stack) {
		s.enter(1, never, tenToFourteen)
		s.carry(never, "src_offset IN (11, 12)")
	}, shorter, nil},
	{"planned, not done, to an instant long past, and gone", func(s *stack) {
		s.enter(1, 1, tenToFourteen)
		s.vanish(tenToFourteen)
	}, shorter, nil},
	{"planned, not done, neither", func(s *stack) {
		s.enter(1, never, tenToFourteen)
		s.carry(in(time.Hour), "src_offset = 12")
	}, shorter, []string{"moved lethe.request/0 12-12"}},
	{"done, but not moved", func(s *stack) {
		s.enter(1, never, tenToFourteen)
		s.land(1, 0)
	}, shorter, []string{"moved lethe.request/0 10-14"}},
	{"moved twice", func(s *stack) {
		s.move(1, never, tenToFourteen, 0)
		s.move(2, in(time.Hour), "src_offset IN (11, 12)", 0)
	}, shorter, nil},
	{"moved twice, and the second time not done", func(s *stack) {
		s.move(1, never, tenToFourteen, 0)
		to := in(time.Hour)
		s.enter(2, to, tenToFourteen)
		s.carry(to, "src_offset = 12")
	}, shorter, nil},
	{"moved and altered by hand", func(s *stack) {
		s.move(1, never, tenToFourteen, 0)
		s.carry(in(1000*time.Hour), "src_offset = 12")
	}, shorter, []string{"moved lethe.request/0 12-12"}},
	{"altered by hand", func(s *stack) { s.carry(never, "src_offset IN (12, 33)") }, shorter, []string{"moved lethe.request/0 12-12", "moved lethe.request/0 33-33"}},
	{"held and released", func(s *stack) {
		s.move(1, never, tenToFourteen, 0)
		s.move(2, 0, "src_offset != 12", 0)
	}, shorter, nil},
	{"held, released and gone", func(s *stack) {
		s.move(1, never, tenToFourteen, 0)
		s.move(2, 0, tenToFourteen, 0)
		s.vanish("src_offset = 12")
	}, shorter, []string{"missing lethe.request/0 12-12"}},
	{"released when their period is over, within the grace", func(s *stack) {
		s.move(1, never, lastBatch, 60*time.Hour)
		s.move(2, 0, lastBatch, 0)
	}, daily, nil},
	{"released when their period is over, after the grace", func(s *stack) {
		s.move(1, never, lastBatch, 60*time.Hour)
		s.move(2, 0, lastBatch, 2*time.Hour)
	}, daily, []string{"late lethe.request/0 30-39"}},
	{"released when their period is over, beside one that was never held", func(s *stack) {
		s.move(1, never, "src_offset > 30", 60*time.Hour)
		s.move(2, 0, "src_offset > 30", 0)
	}, daily, []string{"late lethe.request/0 30-30"}},
	{"a move of another event than the one stored", func(s *stack) { s.enter(1, 1, "src_offset = 12", "77 AS digest") }, shorter, []string{"unexpected lethe.request/0 12-12"}},
	{"a move of what is a dead letter", func(s *stack) { s.enter(1, 1, "src_offset = 12", "15 AS src_offset") }, shorter, []string{"unexpected lethe.request/0 15-15"}},
	{"a move beyond the partition's end", func(s *stack) { s.enter(1, 1, "src_offset = 12", "99 AS src_offset") }, shorter, []string{"unaccounted lethe.request/0 99-99"}},
	{"a move in a topic that the ledger does not know", func(s *stack) { s.enter(1, 1, "src_offset = 12", "'lethe.other' AS src_topic") }, shorter, []string{"unknown /0 12-12"}},
	{"a move in a bucket in which its entry has none", func(s *stack) { s.enter(1, 1, "src_offset = 33", "12 AS src_offset") }, shorter, []string{"unexpected lethe.request/0 12-12"}},
	{"a move in a bucket that is not its day's", func(s *stack) { s.enter(1, 1, "src_offset = 12", "toDate(retained_from) - 2 AS day") }, shorter, []string{"unexpected lethe.request/0 12-12"}},
	{"a move where there is no bucket", func(s *stack) {
		s.enter(1, 1, "src_offset = 12", "toDate(retained_from) - 9 AS day", "bucket - 9 AS bucket")
	}, shorter, []string{"unexpected lethe.request/0 12-12"}},
	{"repeats that are not merged", func(s *stack) {
		s.query("INSERT INTO request_events SELECT * FROM request_events WHERE src_offset BETWEEN 10 AND 19")
		s.query("INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation) FROM ingest_ledger WHERE first = 10")
		s.query("SYSTEM STOP TTL MERGES request_events")
		s.move(1, never, tenToFourteen, 0)
	}, shorter, nil},
	{"a repeat that came after the move", func(s *stack) {
		s.move(1, never, tenToFourteen, 0)
		s.query("INSERT INTO request_events SELECT * REPLACE (0 AS expires_override) FROM request_events WHERE src_offset = 12")
	}, shorter, []string{"moved lethe.request/0 12-12"}},
	{"gone where entries overlap", func(s *stack) {
		s.query("INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation) FROM ingest_ledger WHERE first = 10")
		s.query("INSERT INTO ingest_ledger (cluster, topic, first, last, stored, received_at) SELECT cluster, topic, 12, 13, 2, received_at FROM ingest_ledger WHERE first = 0")
		s.move(1, never, tenToFourteen, 0)
		s.vanish("src_offset = 12")
	}, shorter, []string{"missing lethe.request/0 12-12"}},
	{"a row that was never moved is gone beside some that were", func(s *stack) {
		s.move(1, never, tenToFourteen, 0)
		s.vanish("src_offset = 16")
	}, shorter, []string{"missing lethe.request/0 16-16"}},
}

func TestVerifyMoves(t *testing.T) {
	all := filled(t)
	if r := all.verify(shorter); !r.OK() || r.Moves != 0 || r.Moved != 0 {
		t.Fatalf("got %q and %+v", found(r), r)
	}
	all.save()
	run := func(name string, f func(t *testing.T, s *stack)) {
		t.Run(name, func(t *testing.T) {
			s := *all
			s.t = t
			s.restore()
			f(t, &s)
		})
	}
	for _, c := range moving {
		run(c.name, func(t *testing.T, s *stack) {
			c.do(s)
			s.names(c.want, c.run, shorter, everything)
		})
	}
	run("counts what was moved", func(t *testing.T, s *stack) {
		s.move(1, never, tenToFourteen, 0)
		s.move(2, in(time.Hour), "src_offset = 33", 0)
		s.vanish("src_offset = 33")
		r := s.verify(after(90 * time.Minute))
		var text strings.Builder
		if err := r.Print(&text); err != nil {
			t.Fatal(err)
		}
		if !r.OK() || r.Moves != 6 || r.Moved != 5 || !strings.Contains(text.String(), "of 6 rows in these buckets was moved away from their class's; 5 of them are there") {
			t.Errorf("got %q and %+v\n%s", found(r), r, text.String())
		}
	})
	run("stamps what was moved until it is due", func(t *testing.T, s *stack) {
		s.move(1, in(time.Hour), lastBatch, 0)
		if r := s.verify(shorter); !r.OK() || r.Moves != 10 {
			t.Fatalf("got %q and %+v", found(r), r)
		}
		r := s.verify(after(90 * time.Minute))
		if !r.OK() || r.Believed.Buckets+r.Sampled < 2 {
			t.Errorf("within the grace: got %q and %+v, want the word of stamps taken", found(r), r)
		}
		for seed := range uint64(3) { // whatever the seed draws
			if got := found(s.verify(both(after(3*time.Hour), seeded(seed)))); !slices.Equal(got, []string{"late lethe.request/0 30-39"}) {
				t.Errorf("after the grace: got %q", got)
			}
		}
	})
	run("stamps a bucket of which nothing is left", func(t *testing.T, s *stack) {
		s.enter(1, 1, lastBatch)
		s.land(1, 0)
		s.vanish(lastBatch)
		first := s.verify(shorter)
		if !first.OK() || first.Moves != 10 || first.Moved != 0 {
			t.Fatalf("got %q and %+v", found(first), first)
		}
		second := s.verify(shorter)
		if !second.OK() || second.Buckets != 1 || second.Sampled != 1 || second.Believed.Buckets == 0 {
			t.Errorf("again: got %q and %+v", found(second), second)
		}
		s.query("SYSTEM START MERGES retention_moves")
		s.query("DELETE FROM retention_moves WHERE src_offset = 33")
		for seed := range uint64(3) {
			if got := found(s.verify(seeded(seed))); !slices.Equal(got, []string{"missing lethe.request/0 33-33"}) {
				t.Errorf("one of its moves gone: got %q", got)
			}
		}
	})
	run("reads again what a sweep has done meanwhile", func(t *testing.T, s *stack) {
		s.enter(1, never, lastBatch)
		if r := s.verify(shorter); !r.OK() {
			t.Fatalf("got %q", found(r))
		}
		s.land(1, 0)
		for seed := range uint64(3) {
			if got := found(s.verify(seeded(seed))); !slices.Equal(got, []string{"moved lethe.request/0 30-39"}) {
				t.Errorf("got %q", got)
			}
		}
	})
	run("knows a topic that was made anew", func(t *testing.T, s *stack) {
		// The same offsets once more, of other events of the same day and class, an hour later.
		later := "received_at + toIntervalHour(1) AS received_at"
		s.query("INSERT INTO request_events SELECT * REPLACE (concat('new-', id) AS id, %s) FROM request_events", later)
		for first := 0; first < 40; first += 10 {
			s.query("INSERT INTO ingest_ledger SELECT * REPLACE (epoch + 1 AS epoch, %s, 0 AS dead, 10 - stored AS absent, if(stored < 10, ['absent'], []) AS `other.outcome`, "+
				"[(SELECT sumWithOverflow(%s) FROM request_events WHERE id LIKE 'new-%%' AND src_offset BETWEEN %d AND %d)] AS `cells.digest`) FROM (SELECT * FROM ingest_ledger WHERE first = %[3]d AND epoch = 0)",
				later, delivered, first, first+9)
		}
		s.names(nil, shorter, everything)
		s.enter(1, 1, "src_offset = 12 AND id NOT LIKE 'new-%'")
		s.enter(2, never, "src_offset = 12 AND id LIKE 'new-%'")
		s.carry(never, "src_offset = 12 AND id LIKE 'new-%'")
		s.land(1, 0)
		s.land(2, 0)
		s.vanish("src_offset = 12 AND id NOT LIKE 'new-%'")
		s.names(nil, shorter, everything)
		s.query("SYSTEM START MERGES retention_moves")
		s.query("ALTER TABLE retention_moves UPDATE received_at = received_at + toIntervalHour(1) WHERE sweep = 1 SETTINGS mutations_sync = 2")
		if got := found(s.verify(everything)); !slices.Equal(got, []string{"missing lethe.request/0 12-12", "unexpected lethe.request/0 12-12"}) {
			t.Errorf("moves of the wrong life: got %q", got)
		}
	})
}
