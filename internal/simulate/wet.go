package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
)

// wet is one policy on the engine: real tables, facts, sweeps and readers, beside
// the oracle.
type wet struct {
	*system
	oracle *oracle
	tally  *tally
	world  *world
	rows   []*watched // by number, from the first on

	db      *store.Store
	conn    driver.Conn // looks at the tables past the store
	sweeper *retention.Sweeper
	book    *retention.Book
	now     time.Time
}

func newWet(ctx context.Context, name string, w *world, e *engine) (*wet, error) {
	s, err := newSystem(name, fault{})
	if err != nil {
		return nil, err
	}
	dsn := "http://" + e.addr + "/" + name
	if err := migrate.Apply(ctx, migrate.Options{DSN: dsn, Policy: s.policy}); err != nil {
		return nil, err
	}
	r := &wet{system: s, oracle: newOracle(name), tally: &tally{policy: name}, world: w, now: begin}
	if r.db, err = store.Open(ctx, store.Options{DSN: dsn}); err != nil {
		return nil, err
	}
	options, err := clickhouse.ParseDSN(dsn)
	if err == nil {
		r.conn, err = clickhouse.Open(options)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), r.db.Close())
	}
	for _, kind := range event.Kinds {
		// The one wait that follows no clock: how often replaced parts are looked for.
		if err := r.conn.Exec(ctx, "ALTER TABLE "+kind.Table()+" MODIFY SETTING cleanup_delay_period = 1, max_cleanup_delay_period = 1, cleanup_delay_period_random_add = 0"); err != nil {
			return nil, errors.Join(fmt.Errorf("clean up often: %w", err), r.close())
		}
	}
	r.sweeper = retention.NewSweeper(retention.Options{Storage: promised{r.db, s.policy}, Policy: s.policy, Hash: s.hash,
		Now: func() time.Time { return r.now }, Log: slog.New(slog.DiscardHandler)})
	r.book = retention.NewBook(promised{r.db, s.policy}, s.policy, s.hash)
	return r, nil
}

func (r *wet) close() error { return errors.Join(r.db.Close(), r.conn.Close()) }

// step simulates a segment up to what can be seen of it, with the engine's clock
// at its begin.
func (r *wet) step(ctx context.Context, seg *segment) error {
	r.now = seg.from
	if err := r.tell(ctx, seg); err != nil {
		return fmt.Errorf("%s: tell facts: %w", r.policy.Name, err)
	}
	if err := r.insert(ctx, seg); err != nil {
		return fmt.Errorf("%s: insert: %w", r.policy.Name, err)
	}
	if _, err := r.sweeper.Sweep(ctx, nil); err != nil {
		return fmt.Errorf("%s: %w", r.policy.Name, err)
	}
	if err := r.look(ctx, seg); err != nil {
		return fmt.Errorf("%s: look: %w", r.policy.Name, err)
	}
	return nil
}

// tell stores what becomes known at the begin of a segment.
func (r *wet) tell(ctx context.Context, seg *segment) error {
	known := len(r.source.Facts)
	if err := takeFacts(r.system, r.oracle, r.world, seg); err != nil {
		return err
	}
	if facts := r.source.Facts[known:]; len(facts) > 0 {
		if err := r.db.WriteFacts(ctx, facts); err != nil {
			return err
		}
	}
	for _, q := range r.oracle.requests {
		var err error
		switch {
		case q.erase && q.at.Equal(seg.from):
			e := r.erasure(q)
			err = errors.Join(r.db.WriteErasureSubjects(ctx, q.id, q.subjects, e.Deadline), r.db.WriteErasure(ctx, e))
		case !q.erase && (q.at.Equal(seg.from) || q.until.Equal(seg.from)):
			err = r.db.WriteHold(ctx, q.hold(seg.from))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *wet) insert(ctx context.Context, seg *segment) error {
	batch := r.db.NewBatch()
	for _, h := range seg.arrivals {
		w := r.oracle.watch(h)
		r.rows = append(r.rows, w)
		r.tally.shared = r.tally.shared || w.members != nil
		r.tally.rows++
		row, err := r.row(h)
		if err != nil {
			return err
		}
		if row != nil && r.arrives(row) {
			batch.Add(row)
		}
	}
	return r.db.Insert(ctx, batch, strconv.FormatInt(seg.from.Unix(), 10))
}

// found is what the engine says of one row: whether it is there, with what a
// reader needs, and at how many of the instants its expiry lies ahead.
type found struct {
	row       event.Row
	unexpired int
}

// look compares each row at each instant of the segment: the live expression of its
// expiry, what readers make of it, and its presence.
func (r *wet) look(ctx context.Context, seg *segment) error {
	midnights := seg.midnights()
	all := slices.Clone(midnights)
	for _, w := range r.rows {
		all = append(all, r.oracle.bounds(w, seg.from).instants(seg, nil)...)
	}
	slices.SortFunc(all, time.Time.Compare)
	all = slices.CompactFunc(all, time.Time.Equal)
	there, err := r.measure(ctx, all)
	if err != nil {
		return err
	}
	facts, err := r.book.Facts(ctx)
	if err != nil {
		return err
	}
	var read map[int64]*event.Row
	if seg.checkpoint {
		if read, err = r.read(ctx, facts); err != nil {
			return err
		}
	}
	for _, w := range r.rows {
		b := r.oracle.bounds(w, seg.from)
		found := there[w.number]
		fates := make([]retention.Fate, len(found))
		for i, f := range found {
			fates[i] = facts.Fate(&f.row)
		}
		for _, at := range b.instants(seg, midnights) {
			if w.arrives.After(at) {
				continue
			}
			seen := w.unseen()
			i, _ := slices.BinarySearchFunc(all, at, time.Time.Compare)
			for j, f := range found {
				seen.see(w, &f.row, fates[j], at, i < f.unexpired)
			}
			if read != nil && at.Equal(seg.from) {
				seen.reader = read[w.number] != nil
				for i, m := range w.members {
					seen.members[i].reader = names(read[w.number], m.people[0])
				}
			}
			r.tally.judge(w, b, at, seen, false)
		}
	}
	return nil
}

// measure asks the engine of every row on disk. Of an event there are two while the
// copy without one of its people has taken the place of the other.
func (r *wet) measure(ctx context.Context, instants []time.Time) (map[int64][]*found, error) {
	at := make([]uint32, len(instants))
	for i, t := range instants {
		at[i] = uint32(t.Unix())
	}
	there := make(map[int64][]*found)
	for _, kind := range event.Kinds {
		// No WHERE: what is on disk is seen, whatever its expiry.
		target := "'', ''"
		if kind == event.Audit {
			target = "target_type, target_id"
		}
		rows, err := r.conn.Query(ctx, `SELECT src_offset, arrayCount(d -> expires_at > toDateTime(d, 'UTC'), {at:Array(UInt32)}), retention_class, retained_from,
				toUnixTimestamp64Milli(occurred_at), subject_keys, target_owner_id, user_id, actor_on_behalf_of_id, organization_id, workspace_id, deployment_id,
				data_category, plan_tier, metadata, `+target+` FROM `+kind.Table(), clickhouse.Named("at", at))
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			f := &found{row: event.Row{Kind: kind}}
			var count uint32
			var occurred int64
			var metadata map[string]string
			t := &f.row.Text
			if err := rows.Scan(&f.row.Offset, &count, &f.row.Retention, &f.row.RetainedFrom, &occurred, &f.row.SubjectKeys, &f.row.Owners, &t[event.TUserID], &t[event.TOnBehalfOf],
				&t[event.TOrganization], &t[event.TWorkspace], &t[event.TDeployment], &t[event.TDataCategory], &t[event.TPlanTier], &metadata, &t[event.TTargetType], &t[event.TTargetID]); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			f.row.RetainedFrom, f.row.OccurredAt = f.row.RetainedFrom.UTC(), time.UnixMilli(occurred).UTC()
			for k, v := range metadata {
				f.row.Metadata = append(f.row.Metadata, event.Pair{Key: k, Value: v})
			}
			f.unexpired = int(count)
			there[f.row.Offset] = append(there[f.row.Offset], f)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
	}
	return there, nil
}

// read returns what an investigator is shown now, through the pages of the one reader.
func (r *wet) read(ctx context.Context, facts *retention.Facts) (map[int64]*event.Row, error) {
	const page = 1000
	seen := make(map[int64]*event.Row)
	f := event.Filter{From: begin.AddDate(-1, 0, 0), To: end().AddDate(1, 0, 0), Now: r.now,
		Visible: func(row *event.Row) bool {
			fate := facts.Fate(row)
			retention.Strip(row, fate.Without(r.now, false))
			return fate.Visible(r.now, false)
		}}
	for after := (*event.Position)(nil); ; {
		rows, err := r.db.Events(ctx, f, after, page)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			seen[rows[i].Offset] = &rows[i]
		}
		if len(rows) < page {
			return seen, nil
		}
		last := &rows[len(rows)-1]
		after = &event.Position{OccurredAt: last.OccurredAt, Kind: last.Kind, Source: last.Source, ID: last.ID}
	}
}

// nudge wakes the schedulers of the policy's tables.
func (r *wet) nudge(ctx context.Context) error {
	for _, kind := range event.Kinds {
		if err := r.conn.Exec(ctx, nudge+kind.Table()); err != nil {
			return fmt.Errorf("nudge: %w", err)
		}
	}
	return nil
}

// overdue returns the rows on disk that are due at an instant, or name one for whom they are.
func (r *wet) overdue(ctx context.Context, at time.Time) ([]*watched, error) {
	there, err := r.measure(ctx, nil)
	if err != nil {
		return nil, err
	}
	var left []*watched
	for number, rows := range there {
		w := r.rows[number]
		b := r.oracle.bounds(w, at)
		if !w.stored || b.due(at) {
			left = append(left, w)
		}
		for i, m := range w.members {
			if b.members[i].due(at) && !b.due(at) && slices.ContainsFunc(rows, func(f *found) bool { return names(&f.row, m.people[0]) }) {
				left = append(left, m)
			}
		}
	}
	return left, nil
}

// due reports whether the grace has begun by an instant, after which the bytes are gone.
func (b bounds) due(at time.Time) bool { return !b.held && !b.over.Add(-grace).After(at) }

// promised is the store with the promises of the policy in force: no other has been.
type promised struct {
	*store.Store
	policy *policy.Policy
}

// Promises returns those of the policy file.
func (p promised) Promises(context.Context) ([]policy.StoredClass, error) {
	return p.policy.Stored(), nil
}
