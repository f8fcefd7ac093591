package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// FactsVersion changes whenever anchors, erasures, holds or promises do, and also
// when ClickHouse merges them. It is made of the names of their parts: each insert
// has its own, and reading them costs less than a look into the tables.
func (s *Store) FactsVersion(ctx context.Context) (version string, err error) {
	var parts uint64
	err = s.conn.QueryRow(s.bounded(ctx, nil), `SELECT toString(sumWithOverflow(cityHash64(table, name))), count() FROM system.parts
		WHERE database = currentDatabase() AND table IN ('anchors', 'erasures', 'holds', 'retention_classes', 'retention_shortenings') AND active`).Scan(&version, &parts)
	if err == nil && parts == 0 {
		// There are always promises: who may not see the parts would see no change either.
		err = errors.New("the parts of the tables are not shown")
	}
	return version, wrap("read facts", err)
}

// Facts returns what audit events have said about retention, each once.
func (s *Store) Facts(ctx context.Context) ([]event.Fact, error) {
	return collect(ctx, s, "read anchors", "SELECT DISTINCT subject, toString(action), toUnixTimestamp64Milli(occurred_at), toString(plan_tier) FROM anchors", nil,
		func(rows driver.Rows) (f event.Fact, err error) {
			var at int64
			err = rows.Scan(&f.Subject, &f.Action, &at, &f.Tier)
			f.OccurredAt = time.UnixMilli(at).UTC()
			return f, err
		})
}

// WriteFacts records facts. Writing one again changes nothing.
func (s *Store) WriteFacts(ctx context.Context, facts []event.Fact) error {
	return s.write(ctx, "anchors", "subject, action, occurred_at, plan_tier, source, id, received_at, forget_at", len(facts), func(b driver.Batch, i int) error {
		f := &facts[i]
		return b.Append(f.Subject, f.Action, f.OccurredAt.UTC(), f.Tier, f.Source, f.ID, f.ReceivedAt.UTC(), f.ForgetAt.UTC())
	})
}

// KeepFacts keeps until an instant the facts that would be forgotten before another, and
// with each all others of its subject: a deletion must not outlive the return that clears it.
func (s *Store) KeepFacts(ctx context.Context, before, until time.Time) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(insertSettings()))
	return wrap("keep facts", s.conn.Exec(ctx, `INSERT INTO anchors (subject, action, occurred_at, plan_tier, source, id, received_at, forget_at)
		SELECT subject, action, occurred_at, any(plan_tier), source, id, any(received_at), toDateTime({until:UInt32}) FROM anchors
		WHERE subject IN (SELECT subject FROM anchors GROUP BY subject, action, occurred_at, source, id HAVING max(forget_at) < toDateTime({before:UInt32}))
		GROUP BY subject, action, occurred_at, source, id HAVING max(forget_at) < toDateTime({until:UInt32})`,
		clickhouse.Named("until", seconds(until)), clickhouse.Named("before", seconds(before))))
}

// Erasures returns every erasure as it is now.
func (s *Store) Erasures(ctx context.Context) ([]event.Erasure, error) {
	return collect(ctx, s, "read erasures", `SELECT erasure, toString(scope), toString(state), hashes, toUnixTimestamp64Milli(until), toUnixTimestamp(deadline), toUnixTimestamp(everywhere),
			erased_rows, kept_rows, kept_reason, toString(policy_version), toUnixTimestamp64Milli(updated_at), toUnixTimestamp(forget_at)
		FROM erasures ORDER BY erasure, updated_at DESC LIMIT 1 BY erasure`, nil,
		func(rows driver.Rows) (e event.Erasure, err error) {
			var until, updated int64
			var deadline, everywhere, forget uint32
			var state string
			err = rows.Scan(&e.ID, &e.Scope, &state, &e.Hashes, &until, &deadline, &everywhere,
				&e.ErasedRows, &e.KeptRows, &e.KeptReason, &e.PolicyVersion, &updated, &forget)
			e.State = event.ErasureState(state)
			e.Until, e.UpdatedAt = time.UnixMilli(until).UTC(), time.UnixMilli(updated).UTC()
			e.Deadline, e.Everywhere, e.ForgetAt = fromSeconds(deadline), fromSeconds(everywhere), fromSeconds(forget)
			return e, err
		})
}

// WriteErasure records what an erasure is now.
func (s *Store) WriteErasure(ctx context.Context, e event.Erasure) error {
	return s.write(ctx, "erasures", `erasure, scope, state, hashes, until, deadline, everywhere, erased_rows, kept_rows, kept_reason, policy_version, updated_at, forget_at`, 1,
		func(b driver.Batch, _ int) error {
			return b.Append(e.ID, e.Scope, string(e.State), e.Hashes, e.Until.UTC(), e.Deadline.UTC(), e.Everywhere.UTC(), e.ErasedRows, e.KeptRows, e.KeptReason,
				e.PolicyVersion, e.UpdatedAt.UTC(), e.ForgetAt.UTC())
		})
}

// ErasureSubjects returns the identifiers of an erasure, while they are kept.
func (s *Store) ErasureSubjects(ctx context.Context, erasure string) ([]string, error) {
	return collect(ctx, s, "read erasure", "SELECT DISTINCT subject FROM erasure_keys WHERE erasure = {erasure:String}", []any{clickhouse.Named("erasure", erasure)},
		func(rows driver.Rows) (k string, err error) { return k, rows.Scan(&k) })
}

// WriteErasureSubjects records the identifiers of an erasure until an instant.
func (s *Store) WriteErasureSubjects(ctx context.Context, erasure string, subjects []string, until time.Time) error {
	return s.write(ctx, "erasure_keys", "erasure, subject, forget_at", len(subjects), func(b driver.Batch, i int) error {
		return b.Append(erasure, subjects[i], until.UTC())
	})
}

// KeepErasureSubjects keeps until an instant the identifiers of the erasures that have left
// rows where they are, where they would be forgotten before another.
func (s *Store) KeepErasureSubjects(ctx context.Context, before, until time.Time) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(insertSettings()))
	return wrap("keep identifiers of erasures", s.conn.Exec(ctx, `INSERT INTO erasure_keys (erasure, subject, forget_at)
		SELECT erasure, subject, toDateTime({until:UInt32}) FROM erasure_keys
		WHERE erasure IN (SELECT erasure FROM erasures GROUP BY erasure HAVING argMax(kept_rows, updated_at) > 0)
		GROUP BY erasure, subject HAVING max(forget_at) <= toDateTime({before:UInt32})`,
		clickhouse.Named("until", seconds(until)), clickhouse.Named("before", seconds(before))))
}

// Holds returns every hold as it is now.
func (s *Store) Holds(ctx context.Context) ([]event.Hold, error) {
	return collect(ctx, s, "read holds", `SELECT hold, subjects, hashes, reason, toUnixTimestamp64Milli(placed_at), toUnixTimestamp64Milli(released_at), toUnixTimestamp64Milli(updated_at), toUnixTimestamp(forget_at)
		FROM holds ORDER BY hold, updated_at DESC LIMIT 1 BY hold`, nil,
		func(rows driver.Rows) (h event.Hold, err error) {
			var placed, released, updated int64
			var forget uint32
			err = rows.Scan(&h.ID, &h.Subjects, &h.Hashes, &h.Reason, &placed, &released, &updated, &forget)
			h.PlacedAt, h.UpdatedAt, h.ForgetAt = time.UnixMilli(placed).UTC(), time.UnixMilli(updated).UTC(), fromSeconds(forget)
			if released > 0 {
				h.ReleasedAt = time.UnixMilli(released).UTC()
			}
			return h, err
		})
}

// WriteHold records what a hold is now.
func (s *Store) WriteHold(ctx context.Context, h event.Hold) error {
	released := h.ReleasedAt
	if released.IsZero() {
		released = time.UnixMilli(0)
	}
	return s.write(ctx, "holds", "hold, subjects, hashes, reason, placed_at, released_at, updated_at, forget_at", 1, func(b driver.Batch, _ int) error {
		return b.Append(h.ID, h.Subjects, h.Hashes, h.Reason, h.PlacedAt.UTC(), released.UTC(), h.UpdatedAt.UTC(), h.ForgetAt.UTC())
	})
}

// BeginSweep takes a number higher than every one before. The low bits are
// random, so that two that begin at the same time get two numbers.
func (s *Store) BeginSweep(ctx context.Context, full bool) (event.Sweep, error) {
	var highest uint64
	if err := s.conn.QueryRow(s.bounded(ctx, nil), "SELECT max(sweep) FROM retention_sweeps").Scan(&highest); err != nil {
		return event.Sweep{}, wrap("begin sweep", err)
	}
	sweep := event.Sweep{Number: (highest>>16+1)<<16 | rand.Uint64N(1<<16), Full: full, BeganAt: s.now().UTC()}
	return sweep, s.writeSweep(ctx, sweep, "planned", 0)
}

// LastSweeps returns when the newest sweeps that are done began: one over all
// rows, and any. Zero: there was none.
func (s *Store) LastSweeps(ctx context.Context) (full, last time.Time, err error) {
	var a, b int64
	err = s.conn.QueryRow(s.bounded(ctx, nil), `SELECT toUnixTimestamp64Milli(maxIf(began_at, full)), toUnixTimestamp64Milli(max(began_at)) FROM retention_sweeps WHERE state = 'done'`).Scan(&a, &b)
	if a > 0 {
		full = time.UnixMilli(a).UTC()
	}
	if b > 0 {
		last = time.UnixMilli(b).UTC()
	}
	return full, last, wrap("read sweeps", err)
}

func (s *Store) writeSweep(ctx context.Context, w event.Sweep, state string, moved int) error {
	return s.write(ctx, "retention_sweeps", "sweep, full, state, moved_rows, began_at, updated_at", 1, func(b driver.Batch, _ int) error {
		return b.Append(w.Number, w.Full, state, uint64(moved), w.BeganAt, s.now().UTC())
	})
}

// EndSweep says that all moves of a sweep are done, unless a later one has begun:
// then it may have moved a part of them, and the later one looks again.
func (s *Store) EndSweep(ctx context.Context, w event.Sweep, moved int) (bool, error) {
	var highest uint64
	if err := s.conn.QueryRow(s.bounded(ctx, nil), "SELECT max(sweep) FROM retention_sweeps").Scan(&highest); err != nil {
		return false, wrap("end sweep", err)
	}
	if highest != w.Number {
		return false, nil
	}
	return true, s.writeSweep(ctx, w, "done", moved)
}

// ofMember is what stands before the person in the subject of a member, see event.Member.
const ofMember = `^member:(?:[^/]|//)*/`

var beforePerson = regexp.MustCompile(ofMember)

// known are the subjects that any fact speaks of. A member's rows are found by the person,
// in whatever organization.
const known = "(SELECT replaceRegexpOne(subject, '" + ofMember + "', '') FROM anchors UNION ALL SELECT subject FROM erasure_keys UNION ALL SELECT arrayJoin(subjects) FROM holds)"

// belongs says how a row can be found by what it belongs to.
var belongs = []struct{ prefix, column string }{
	{"organization:", "organization_id"}, {"workspace:", "workspace_id"}, {"project:", "project_id"}, {"deployment:", "deployment_id"},
	{"log:", "concat(deployment_id, '/', data_category)"},
}

// fated are the texts that decide a row's fate.
var fated = []event.Text{
	event.TOrganization, event.TWorkspace, event.TProject, event.TDeployment, event.TDataCategory,
	event.TTargetType, event.TTargetID, event.TOnBehalfOf, event.TUserID, event.TPlanTier,
	event.TDeviceID, event.TUserEmail, event.TSessionID,
}

// Candidates returns the rows that any fact speaks of and those whose expiry was
// moved before, or with subjects theirs. It says nothing of their order.
func (s *Store) Candidates(ctx context.Context, kind event.Kind, subjects []string) iter.Seq2[*event.Row, error] {
	return func(yield func(*event.Row, error) bool) {
		q := query{}
		if subjects == nil {
			arms := []string{"expires_override > 0", "arrayExists(k -> k IN " + known + ", subject_keys)"}
			for _, b := range belongs {
				arms = append(arms, "concat('"+b.prefix+"', "+b.column+") IN "+known)
			}
			q.add("(" + strings.Join(arms, " OR ") + ")")
		} else {
			q.of(subjects)
		}
		columns := []string{"source", "id", "toUnixTimestamp64Milli(occurred_at)", "toUnixTimestamp64Milli(received_at)", "retention_class", "toInt32(bucket)",
			"toUInt32(retained_from)", "expires_override", "src_topic", "src_partition", "src_offset", "subject_keys", "target_owner_id"}
		for _, t := range fated {
			if event.Texts[t].Kinds.Has(kind) {
				columns = append(columns, event.Texts[t].Column())
			}
		}
		ctx, cancel := context.WithCancel(ctx)
		rows, err := s.conn.Query(s.bounded(ctx, unhurried), q.text(strings.Join(columns, ", "), kind, ""), q.params...)
		if err != nil {
			cancel()
			yield(nil, wrap("read candidates", err))
			return
		}
		defer rows.Close()
		defer cancel() // before: to close an answer is to read it to its end
		for rows.Next() {
			r := &event.Row{Kind: kind}
			var occurred, received int64
			var retained uint32
			target := []any{&r.Source, &r.ID, &occurred, &received, &r.Retention, &r.Bucket, &retained, &r.ExpiresOverride,
				&r.Topic, &r.Partition, &r.Offset, &r.SubjectKeys, &r.Owners}
			for _, t := range fated {
				if event.Texts[t].Kinds.Has(kind) {
					target = append(target, &r.Text[t])
				}
			}
			if err := rows.Scan(target...); err != nil {
				yield(nil, wrap("read candidates", err))
				return
			}
			r.OccurredAt, r.ReceivedAt, r.RetainedFrom = time.UnixMilli(occurred).UTC(), time.UnixMilli(received).UTC(), fromSeconds(retained)
			if !yield(r, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, wrap("read candidates", err))
		}
	}
}

// of adds the condition that a row is of one of the subjects. It names only the columns that
// they need: a condition on another one would keep ClickHouse from using the index of the people.
func (q *query) of(subjects []string) {
	var people, arms []string
	values := make(map[string][]string) // by prefix
next:
	for _, k := range subjects {
		for _, b := range belongs {
			if id, ok := strings.CutPrefix(k, b.prefix); ok {
				values[b.prefix] = append(values[b.prefix], id)
				continue next
			}
		}
		people = append(people, beforePerson.ReplaceAllString(k, ""))
	}
	if len(people) > 0 {
		// hasAny compares each with each; it is asked of the index alone.
		arms = append(arms, "indexHint(hasAny(subject_keys, {people:Array(String)})) AND arrayExists(k -> k IN {people:Array(String)}, subject_keys)")
		q.params = append(q.params, clickhouse.Named("people", people))
	}
	for i, b := range belongs {
		if ids := values[b.prefix]; len(ids) > 0 {
			name := "ids" + strconv.Itoa(i)
			arms = append(arms, b.column+" IN {"+name+":Array(String)}")
			q.params = append(q.params, clickhouse.Named(name, ids))
		}
	}
	if len(arms) == 0 {
		arms = append(arms, "false")
	}
	q.add("(" + strings.Join(arms, " OR ") + ")")
}

// WriteMoves enters rows whose expiry a sweep will move.
func (s *Store) WriteMoves(ctx context.Context, w event.Sweep, moves []event.Move) error {
	return s.write(ctx, "retention_moves", `table, retention_class, bucket, day, src_topic, src_partition, src_offset, digest, received_at, from_override, to_override, cause, sweep, planned_at`,
		len(moves), func(b driver.Batch, i int) error {
			m, r := &moves[i], moves[i].Row
			return b.Append(r.Kind.Table(), r.Retention, time.Unix(int64(r.Bucket)*86400, 0).UTC(), r.RetainedFrom.UTC().Truncate(24*time.Hour),
				r.Topic, r.Partition, r.Offset, ledger.Digest(r.Source, r.ID, r.Offset), r.ReceivedAt.UTC(), r.ExpiresOverride, m.To, m.Cause, w.Number, s.now().UTC())
		})
}

// perClass names a delivery of a class in one number: a copy has the digest of its original.
func perClass(digest string) string { return "cityHash64(toString(retention_class), " + digest + ")" }

// Move changes the expiries that a sweep has entered for a kind, in one mutation,
// and returns when it is done. A mutation rewrites the parts that hold such rows, but
// for rows that are over by then, and tells the TTL of the change in either direction,
// which no cheaper way does. It looks at the number again while it runs, so that a
// process that was held up between its plan and its act changes nothing. The bucket
// leaves out whole parts; of a row numbers are asked first, which leave few to hash. Copies
// were stored with their expiry.
func (s *Store) Move(ctx context.Context, w event.Sweep, kind event.Kind) error {
	mine := fmt.Sprintf("retention_moves WHERE sweep = %d AND table = '%s' AND cause != 'anonymised'", w.Number, kind.Table())
	ordered := "(SELECT " + perClass("digest") + " AS row, to_override FROM " + mine + " ORDER BY row)"
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"mutations_sync": 2, "allow_nondeterministic_mutations": 1, "max_execution_time": 0,
	}))
	// An ALTER takes no bound values; there is nothing in it but a number and a table of ours.
	return wrap("move expiry", s.patient.Exec(ctx, `ALTER TABLE `+kind.Table()+` UPDATE expires_override = transform(`+perClass(digest)+`,
			(SELECT groupArray(row) FROM `+ordered+`), (SELECT groupArray(to_override) FROM `+ordered+`), expires_override)
		WHERE bucket IN (SELECT bucket FROM `+mine+`)
			AND (src_partition, src_offset) IN (SELECT src_partition, src_offset FROM `+mine+`)
			AND `+perClass(digest)+` IN (SELECT `+perClass("digest")+` FROM `+mine+`)
			AND (SELECT max(sweep) FROM retention_sweeps) = `+strconv.FormatUint(w.Number, 10)))
}

// Leftover reports whether a part of the events that was replaced before the
// instant, or one that was detached, is still on disk.
func (s *Store) Leftover(ctx context.Context, before time.Time) (bool, error) {
	tables := make([]string, 0, event.NumKinds)
	for _, kind := range event.Kinds {
		tables = append(tables, kind.Table())
	}
	var parts uint64
	err := s.conn.QueryRow(s.bounded(ctx, nil), `SELECT
		(SELECT count() FROM system.parts WHERE database = currentDatabase() AND has({tables:Array(String)}, table) AND NOT active AND remove_time <= toDateTime({before:UInt32})) +
		(SELECT count() FROM system.detached_parts WHERE database = currentDatabase() AND has({tables:Array(String)}, table))`,
		clickhouse.Named("tables", tables), clickhouse.Named("before", seconds(before))).Scan(&parts)
	return parts > 0, wrap("look for parts", err)
}

func fromSeconds(seconds uint32) time.Time { return time.Unix(int64(seconds), 0).UTC() }
