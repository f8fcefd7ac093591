package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/event"
)

// Withheld counts, per kind, the events that match the filter and whose expiry has
// passed, or that were erased, but which ClickHouse has not yet removed. Readers
// never see them. As erased also count the rows of the leaving classes whose expiry
// was moved: they wait for it where few may see them.
func (s *Store) Withheld(ctx context.Context, f event.Filter, leaving []string) (counts [event.NumKinds]event.Withheld, err error) {
	const distinct = "uniqExactIf(source, id, occurred_at, "
	for _, kind := range event.Kinds {
		q, ok := read(f, kind, expired)
		if !ok {
			continue
		}
		n := &counts[kind]
		text := q.text(distinct+"expires_override != {erased:UInt32}), "+distinct+"expires_override = {erased:UInt32})", kind, "")
		q.bind("erased", strconv.Itoa(event.ErasedOverride))
		if err := s.conn.QueryRow(s.bounded(ctx, nil), text, q.params...).Scan(&n.PastExpiry, &n.Erased); err != nil {
			return counts, wrap("count expired", err)
		}
		if len(leaving) == 0 {
			continue
		}
		q, _ = read(f, kind, readable)
		q.add("retention_class IN {leaving:Array(String)} AND expires_override > 0 AND expires_override < {sentinel:UInt32}")
		q.params = append(q.params, clickhouse.Named("leaving", leaving))
		q.bind("sentinel", strconv.Itoa(sentinel))
		var waiting uint64
		if err := s.conn.QueryRow(s.bounded(ctx, nil), q.text(distinct+"true)", kind, ""), q.params...).Scan(&waiting); err != nil {
			return counts, wrap("count leaving", err)
		}
		n.Erased += waiting
	}
	return counts, nil
}

// maxConcealed is how many rows of a kind Concealed looks at: of a whole organization
// there may be more than an answer has time for.
const maxConcealed = 20_000

// Concealed counts, per kind, the events of the subjects that match the filter, that
// have not expired, and of which concealed says yes. It is at least so many where
// there are more than 20,000 rows.
func (s *Store) Concealed(ctx context.Context, f event.Filter, subjects []string, concealed func(*event.Row) bool) (counts [event.NumKinds]uint64, err error) {
	for _, kind := range event.Kinds {
		q, ok := read(f, kind, readable)
		if !ok {
			continue
		}
		q.of(subjects)
		q.bind("limit", strconv.Itoa(maxConcealed))
		found := make(map[event.Position]bool)
		err := s.each(ctx, kind, q.text(selected[kind], kind, " LIMIT {limit:UInt64}"), q.params, nil, func(r *event.Row) bool {
			if concealed(r) {
				found[position(r)] = true
			}
			return true
		})
		if err != nil {
			return counts, wrap("count concealed", err)
		}
		counts[kind] = uint64(len(found))
	}
	return counts, nil
}

// sentinel is the expiry of a row that waits for its anchor, 2105-12-31.
const sentinel = 4291660800

// ClassFacts measures every stored retention class of every table at an
// instant: rows (repeats included), their times, and their expiry. A class that waits for an
// anchor has no next expiry.
func (s *Store) ClassFacts(ctx context.Context, now time.Time) ([]event.ClassFacts, error) {
	var facts []event.ClassFacts
	for _, kind := range event.Kinds {
		// No filter: these are facts about the tables, not rows of a person.
		q := query{}
		q.bind("now", seconds(now))
		q.bind("sentinel", strconv.Itoa(sentinel))
		rows, err := s.conn.Query(s.bounded(ctx, nil), `SELECT retention_class, count(),
				toUnixTimestamp64Milli(min(occurred_at)), toUnixTimestamp64Milli(max(occurred_at)),
				toUInt32(minIf(expires_at, expires_at > toDateTime({now:UInt32}, 'UTC') AND toUInt32(expires_at) < {sentinel:UInt32})),
				countIf(expires_at <= toDateTime({now:UInt32}, 'UTC'))
			FROM `+kind.Table()+` GROUP BY retention_class ORDER BY retention_class`, q.params...)
		if err != nil {
			return nil, wrap("read class facts", err)
		}
		for rows.Next() {
			f := event.ClassFacts{Table: kind.Table()}
			var oldest, newest int64
			var next uint32
			if err := rows.Scan(&f.Retention, &f.Rows, &oldest, &newest, &next, &f.PastExpiry); err != nil {
				rows.Close()
				return nil, wrap("read class facts", err)
			}
			f.Oldest, f.Newest = time.UnixMilli(oldest).UTC(), time.UnixMilli(newest).UTC()
			if next != 0 {
				f.NextExpiry = time.Unix(int64(next), 0).UTC()
			}
			facts = append(facts, f)
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, wrap("read class facts", err)
		}
	}
	return facts, nil
}

// TTL returns the TTL expression of each event table as ClickHouse has it now.
// A table without one has an empty expression.
func (s *Store) TTL(ctx context.Context) (map[string]string, error) {
	live := make(map[string]string, event.NumKinds)
	for _, kind := range event.Kinds {
		q := query{}
		q.bind("table", kind.Table())
		var engine string
		err := s.conn.QueryRow(s.bounded(ctx, nil),
			"SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {table:String}", q.params...).Scan(&engine)
		if err != nil {
			return nil, wrap("read TTL", err)
		}
		engine, _, _ = strings.Cut(engine, " SETTINGS ")
		_, live[kind.Table()], _ = strings.Cut(engine, " TTL ")
	}
	return live, nil
}
