package ingest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/verify"
)

// kept is how long every class is kept, in buckets of days.
type kept time.Duration

func (k kept) End(from time.Time) time.Time { return from.Add(time.Duration(k)) }
func (k kept) Bucket(from time.Time) int32  { return int32(from.Unix() / 86400) }

// verify runs the proof; change may alter its options.
func (s *stack) verify(change func(*verify.Options)) *verify.Report {
	s.t.Helper()
	survey, err := NewSurvey(s.t.Context(), SurveyOptions{Brokers: s.kafka.Brokers, Transport: s.transport(), Group: s.group, Topics: s.topics[:], DeadTopic: s.dead})
	if err != nil {
		s.t.Fatal(err)
	}
	classes, err := s.store.Classes(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	periods := make(map[string]policy.Period, len(classes))
	for _, c := range classes {
		periods[c.Retention] = policy.Period{Months: c.Period.Months, Days: c.Period.Days, Sentinel: c.Sentinel}
	}
	o := verify.Options{
		Ledger: s.store, Moves: s.store, Rows: s.store, Stamps: s.store, Kafka: survey, Grace: time.Hour, Now: time.Now,
		Period: func(class string) verify.Period { return periods[class] },
	}
	change(&o)
	report, err := verify.Run(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

// found lists the findings as "kind partition first-last".
func found(r *verify.Report) []string {
	var list []string
	for _, f := range r.Findings {
		list = append(list, fmt.Sprintf("%s %s/%d %d-%d", f.Kind, f.Partition.Topic, f.Partition.Partition, f.First, f.Last))
	}
	return list
}

// filled is a stack on which forty events, one of them no event, came in four
// batches; those of the last are two days older than the others.
func filled(t *testing.T) *stack {
	t.Helper()
	s := newStack(t, 1)
	s.query("SYSTEM STOP MERGES request_events")
	r := s.start(nil)
	for n := range 4 {
		values := requestEvents(10*n, 10*n+10)
		switch n {
		case 1:
			values[5] = "no event"
		case 3:
			values = olderEvents(10*n, 10*n+10, 50*time.Hour)
		}
		s.publish(topics[0], 0, 0, values...)
		eventually(t, "the batch is in the ledger", func() bool {
			return s.query("SELECT sum(stored + dead) FROM ingest_ledger") == fmt.Sprint(10*n+10)
		})
	}
	r.stop()
	return s
}

// savedTables are what restore brings back.
var savedTables = []string{"request_events", "ingest_ledger", "verified_buckets", "retention_moves", "retention_sweeps"}

// save keeps the parts of the tables, so that a test can break them more than once.
func (s *stack) save() {
	for _, table := range savedTables {
		s.query("CREATE TABLE saved_%s AS %[1]s", table)
		s.query("SYSTEM STOP MERGES saved_%s", table)
		s.attach(table, "saved_"+table)
	}
}

func (s *stack) restore() {
	for _, table := range savedTables {
		s.query("SYSTEM STOP MERGES %s", table)
		s.query("TRUNCATE TABLE %s", table)
		s.attach("saved_"+table, table)
	}
}

func (s *stack) attach(from, to string) {
	s.t.Helper()
	ids := s.query("SELECT DISTINCT partition_id FROM system.parts WHERE database = currentDatabase() AND active AND table = '%s'", from)
	for id := range strings.FieldsSeq(ids) {
		s.query("ALTER TABLE %s ATTACH PARTITION ID '%s' FROM %s", to, id, from)
	}
}

const year = 365 * 24 * time.Hour

const columns = "* EXCEPT (id, src_offset), id, src_offset"

// faults that a proof must name.
var broken = []struct {
	name   string
	breaks []string
	want   []string
}{
	{"nothing", nil, nil},
	{"one row deleted", []string{"DELETE FROM request_events WHERE src_offset = 12"}, []string{"missing lethe.request/0 12-12"}},
	{"one row inserted under another offset", []string{
		"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 3 FROM request_events WHERE src_offset = 12",
	}, []string{"unexpected lethe.request/0 3-3"}},
	{"one row inserted under an offset beyond the partition's end", []string{
		"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 99 FROM request_events WHERE src_offset = 12",
	}, []string{"unaccounted lethe.request/0 99-99"}},
	{"one row inserted in a bucket in which its entry has none", []string{
		"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 12 FROM request_events WHERE src_offset = 33",
	}, []string{"unexpected lethe.request/0 12-12"}},
	{"one row in a bucket that is not its day's", []string{
		"INSERT INTO request_events SELECT * REPLACE (retained_from - 172800 AS retained_from) FROM request_events WHERE src_offset = 12",
	}, []string{"unexpected lethe.request/0 12-12"}},
	{"one row of a topic that the ledger does not know", []string{
		"INSERT INTO request_events SELECT * REPLACE ('lethe.other' AS src_topic) FROM request_events WHERE src_offset = 12",
	}, []string{"unknown /0 12-12"}},
	{"one row moved to another offset", []string{
		"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 3 FROM request_events WHERE src_offset = 12",
		"DELETE FROM request_events WHERE src_offset = 12",
	}, []string{"unexpected lethe.request/0 3-3", "missing lethe.request/0 12-12"}},
	{"a row where the ledger has a dead letter", []string{
		"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 15 FROM request_events WHERE src_offset = 12",
	}, []string{"unexpected lethe.request/0 15-15"}},
	{"one ledger row dropped", []string{"DELETE FROM ingest_ledger WHERE first = 10"},
		[]string{"gap lethe.request/0 10-19", "unaccounted lethe.request/0 10-19"}},
	{"the last ledger row dropped", []string{"DELETE FROM ingest_ledger WHERE first = 30"},
		[]string{"position lethe.request/0 30-39"}},
	{"one digest altered", []string{
		"ALTER TABLE ingest_ledger UPDATE `cells.digest` = arrayMap(d -> d + 1, `cells.digest`) WHERE first = 20 SETTINGS mutations_sync = 2",
	}, []string{"digest lethe.request/0 20-29"}},
	{"outcomes that do not add up", []string{
		"ALTER TABLE ingest_ledger UPDATE stored = 9 WHERE first = 20 SETTINGS mutations_sync = 2",
	}, []string{"entry lethe.request/0 20-29"}},
	{"one part detached", nil, []string{"missing lethe.request/0 20-29"}},
	{"an overlap that agrees", []string{
		"INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation) FROM ingest_ledger WHERE first = 10",
	}, nil},
	{"one digest altered where entries overlap", []string{
		"INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation) FROM ingest_ledger WHERE first = 20",
		"ALTER TABLE ingest_ledger UPDATE `cells.digest` = arrayMap(d -> d + 1, `cells.digest`) WHERE first = 20 SETTINGS mutations_sync = 2",
	}, []string{"digest lethe.request/0 20-29"}},
	{"a row where overlapping entries have a dead letter", []string{
		"INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation) FROM ingest_ledger WHERE first = 10",
		"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 15 FROM request_events WHERE src_offset = 12",
	}, []string{"unexpected lethe.request/0 15-15"}},
	{"an entry contradicted by a second delivery", []string{
		"INSERT INTO ingest_ledger (cluster, topic, first, last, expired, `other.first`, `other.last`, `other.outcome`, received_at) " +
			"SELECT cluster, topic, 4, 5, 2, [4], [5], ['expired'], received_at FROM ingest_ledger WHERE first = 0",
	}, []string{"conflict lethe.request/0 4-5"}},
	{"offsets that the topic's retention took", []string{
		"ALTER TABLE ingest_ledger UPDATE dead = 0, lost = 1, `other.outcome` = ['lost'] WHERE first = 10 SETTINGS mutations_sync = 2",
	}, []string{"lost lethe.request/0 15-15"}},
	{"an offset that held no record", []string{
		"ALTER TABLE ingest_ledger UPDATE dead = 0, absent = 1, `other.outcome` = ['absent'] WHERE first = 10 SETTINGS mutations_sync = 2",
	}, nil},
	{"a row where the ledger says that there was no record", []string{
		"ALTER TABLE ingest_ledger UPDATE dead = 0, absent = 1, `other.outcome` = ['absent'] WHERE first = 10 SETTINGS mutations_sync = 2",
		"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 15 FROM request_events WHERE src_offset = 12",
	}, []string{"unexpected lethe.request/0 15-15"}},
	{"an offset that was erased before it came", []string{
		"ALTER TABLE ingest_ledger UPDATE dead = 0, suppressed = 1, `other.outcome` = ['suppressed'] WHERE first = 10 SETTINGS mutations_sync = 2",
	}, nil},
	{"a row where the ledger says that it was erased before it came", []string{
		"ALTER TABLE ingest_ledger UPDATE dead = 0, suppressed = 1, `other.outcome` = ['suppressed'] WHERE first = 10 SETTINGS mutations_sync = 2",
		"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 15 FROM request_events WHERE src_offset = 12",
	}, []string{"unexpected lethe.request/0 15-15"}},
	{"a dead letter that is not there", []string{
		"ALTER TABLE ingest_ledger UPDATE stored = 9, dead = 1, `other.first` = [24], `other.last` = [24], `other.outcome` = ['dead'], " +
			"`cells.rows` = [9] WHERE first = 20 SETTINGS mutations_sync = 2",
		"DELETE FROM request_events WHERE src_offset = 24",
		"ALTER TABLE ingest_ledger UPDATE `cells.digest` = [(SELECT sumWithOverflow(xxHash64(concat(source, '\\0', id, '\\0', toString(src_offset)))) FROM request_events WHERE src_offset BETWEEN 20 AND 29)] WHERE first = 20 SETTINGS mutations_sync = 2",
	}, []string{"letter lethe.request/0 24-24"}},
	{"a row deleted behind repeats that are not merged", []string{
		"INSERT INTO request_events SELECT * FROM request_events WHERE src_offset BETWEEN 10 AND 19",
		"INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation) FROM ingest_ledger WHERE first = 10",
		"DELETE FROM request_events WHERE src_offset = 12",
	}, []string{"missing lethe.request/0 12-12"}},
}

// tamper breaks what restore has brought back.
func (s *stack) tamper(name string, statements []string) {
	s.t.Helper()
	if name == "one part detached" {
		s.query("ALTER TABLE request_events DETACH PART '%s'", s.query("SELECT _part FROM request_events WHERE src_offset = 22"))
	}
	if strings.Contains(strings.Join(statements, ""), "DELETE FROM request_events") { // a mutation
		s.query("SYSTEM START MERGES request_events")
	}
	s.query("SYSTEM START MERGES ingest_ledger")
	for _, b := range statements {
		s.query("%s", b)
	}
}

func everything(o *verify.Options)          { o.Full = true }
func shorter(*verify.Options)               {}
func seeded(n uint64) func(*verify.Options) { return func(o *verify.Options) { o.Seed = n } }

func TestVerify(t *testing.T) {
	all := filled(t)
	first := all.verify(shorter)
	if a := first.Accounts[0]; !first.OK() || first.Rows != 39 || first.Entries != 4 || first.Buckets < 2 || first.Letters != 1 ||
		a.Counts[ledger.Stored] != 39 || a.Counts[ledger.Dead] != 1 || a.Committed != 40 || a.End != 40 {
		t.Fatalf("the first run: got %q and %+v", found(first), first)
	}
	all.save() // with the stamps
	run := func(name string, f func(t *testing.T, s *stack)) {
		t.Run(name, func(t *testing.T) {
			s := *all
			s.t = t
			s.restore()
			f(t, &s)
		})
	}
	for _, c := range broken {
		run("names "+c.name, func(t *testing.T, s *stack) {
			s.tamper(c.name, c.breaks)
			s.names(c.want, shorter, shorter, everything, shorter)
		})
	}
	run("takes the word of stamps", func(t *testing.T, s *stack) {
		r := s.verify(shorter)
		if !r.OK() || r.Buckets != 1 || r.Sampled != 1 || r.Believed.Buckets != first.Buckets-1 || r.Rows+r.Believed.Rows != 39 || r.Rows == 39 || r.Believed.Since.IsZero() {
			t.Errorf("got %q and %+v", found(r), r)
		}
		if r := s.verify(everything); !r.OK() || r.Rows != 39 || r.Sampled != 0 || r.Believed.Buckets != 0 {
			t.Errorf("in full: got %q and %+v", found(r), r)
		}
	})
	run("samples", func(t *testing.T, s *stack) {
		s.tamper("", []string{"DELETE FROM request_events WHERE src_offset = 33"})
		s.forge() // as if it had happened below what ClickHouse knows of its parts
		believed, named := false, false
		for seed := uint64(0); !believed || !named; seed++ {
			if seed > 100 {
				t.Fatalf("no seed chooses otherwise: believed %v, named %v", believed, named)
			}
			r := s.verify(seeded(seed))
			believed = believed || r.OK()
			if r.OK() {
				continue
			}
			named = true
			if got := found(r); !slices.Equal(got, []string{"missing lethe.request/0 33-33"}) {
				t.Errorf("got %q", got)
			}
			if got := found(s.verify(seeded(seed + 1))); !slices.Equal(got, []string{"missing lethe.request/0 33-33"}) {
				t.Errorf("once found, with another seed: got %q", got)
			}
			s.forge()
			if again := s.verify(seeded(seed)); again.OK() || again.Rows != r.Rows {
				t.Errorf("the same seed again: got %q and %d rows, want %d", found(again), again.Rows, r.Rows)
			}
			s.forge()
		}
	})
	run("reads what is new", func(t *testing.T, s *stack) {
		old := s.query("SELECT count() FROM request_events WHERE src_offset >= 30")
		s.query("INSERT INTO request_events SELECT * FROM request_events WHERE src_offset = 12") // a repeat
		r := s.verify(shorter)
		if !r.OK() || r.Rows+r.Believed.Rows != 40 || old != "10" || r.Repeats != 1 {
			t.Errorf("got %q and %+v", found(r), r)
		}
	})
	run("knows what is due", func(t *testing.T, s *stack) {
		due := func(period, grace time.Duration) func(*verify.Options) {
			return func(o *verify.Options) { o.Period, o.Grace = func(string) verify.Period { return kept(period) }, grace }
		}
		// The older events are past their period and the grace, the others are not.
		r := s.verify(due(25*time.Hour, time.Minute))
		if got := found(r); len(got) != 1 || got[0] != "late lethe.request/0 30-39" {
			t.Errorf("rows that have a stamp outlived the grace: got %q", got)
		}
		shortened := func(ago time.Duration) func(*verify.Options) {
			return func(o *verify.Options) {
				due(25*time.Hour, time.Minute)(o)
				o.Since = func(string) time.Time { return time.Now().Add(-ago) }
			}
		}
		if r := s.verify(shortened(2 * time.Minute)); r.OK() {
			t.Error("they outlived the grace after the period was shortened: got nothing")
		}
		if r := s.verify(shortened(time.Second)); !r.OK() {
			t.Errorf("the period was shortened a moment ago: got %q", found(r))
		}
		s.query("SYSTEM START MERGES request_events")
		s.query("DELETE FROM request_events WHERE src_offset >= 30")
		if r := s.verify(due(25*time.Hour, time.Minute)); !r.OK() {
			t.Errorf("they have gone: got %q", found(r))
		}
		if r := s.verify(due(25*time.Hour, 1000*time.Hour)); !r.OK() {
			t.Errorf("they may have gone: got %q", found(r))
		}
		if got := found(s.verify(due(year, time.Minute))); !slices.Equal(got, []string{"missing lethe.request/0 30-39"}) {
			t.Errorf("they must not have gone: got %q", got)
		}
	})
	run("counts repeats", func(t *testing.T, s *stack) {
		s.query("INSERT INTO request_events SELECT * FROM request_events WHERE src_offset BETWEEN 3 AND 12")
		s.query("INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation) FROM ingest_ledger WHERE first = 10")
		if r := s.verify(everything); !r.OK() || r.Repeats != 10 || r.Accounts[0].Counts[ledger.Stored] != 39 {
			t.Errorf("got %q, %d repeats and %v, want none, 10 and 39 stored", found(r), r.Repeats, r.Accounts)
		}
	})
}

// names expects that all of these runs find the same: with stamps from before, in
// full, and after that without any stamp.
func (s *stack) names(want []string, run func(*verify.Options), changes ...func(*verify.Options)) {
	s.t.Helper()
	for _, change := range changes {
		report := s.verify(func(o *verify.Options) { run(o); change(o) })
		var text strings.Builder
		if err := report.Print(&text); err != nil {
			s.t.Fatal(err)
		}
		if got := found(report); !slices.Equal(got, want) {
			s.t.Errorf("full %v: got %q, want %q\n%s", report.Full, got, want, text.String())
		}
		for _, f := range report.Findings {
			if !strings.Contains(text.String(), f.Kind) || !strings.Contains(text.String(), f.Text) {
				s.t.Errorf("the table does not show %+v:\n%s", f, text.String())
			}
			if f.Kind == "missing" && (!strings.HasPrefix(f.Class, "request/") || f.Day == "") {
				s.t.Errorf("a missing row has no class or day: %+v", f)
			}
			if f.Kind == "conflict" && (!strings.Contains(f.Text, "entry 0-9") || !strings.Contains(f.Text, "entry 4-5")) {
				s.t.Errorf("a conflict does not name both entries: %+v", f)
			}
		}
		if report.Full {
			s.query("TRUNCATE TABLE verified_buckets")
		}
	}
}

// forge stamps every bucket as it is.
func (s *stack) forge() {
	s.t.Helper()
	contents, err := s.store.Contents(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	sums, err := s.store.Sums(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	said := make(map[ledger.Bucket]uint64)
	for _, x := range sums {
		said[ledger.Bucket{Table: x.Table, Retention: x.Retention, First: x.Day}] += x.Hash
	}
	var stamps []ledger.Stamp
	for _, c := range contents {
		stamps = append(stamps, ledger.Stamp{Bucket: c.Bucket, Parts: c.Parts, Ledger: said[c.Bucket], At: time.Now()})
	}
	if err := s.store.WriteStamps(s.t.Context(), stamps); err != nil {
		s.t.Fatal(err)
	}
}
