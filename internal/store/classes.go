package store

import (
	"context"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/event"
)

// Span is a length of time in calendar months and days of 24 hours.
type Span struct{ Months, Days int }

// Class is a stored retention class as the database knows it: the promise of its key,
// and what holds of it where a later policy file shortened it.
type Class struct {
	Retention string
	Promised  Span
	Period    Span // no longer than Promised
	Sentinel  bool // ends at no known time; both are zero

	Anchor, KeyedBy string // "" where there is none, and where an earlier program registered it
	After           Span
	Within          bool
	AtLeast         Span

	Erasable          bool
	Reason, Downgrade string

	ShortenedBy string    // the policy version; "": it was not
	ShortenedAt time.Time // 1970 where it was not
}

// Classes returns every class that any policy file ever produced.
func (s *Store) Classes(ctx context.Context) ([]Class, error) {
	const op = "read classes"
	rows, err := s.conn.Query(s.bounded(ctx, nil), `SELECT retention_class, promised_months, promised_days, months, days, sentinel, anchor, keyed_by,
			after_months, after_days, within, least_months, least_days, erasable, reason, downgrade, shortened_by, shortened_at
		FROM retention_promises ORDER BY retention_class`)
	if err != nil {
		return nil, wrap(op, err)
	}
	defer rows.Close()
	var all []Class
	for rows.Next() {
		var c Class
		var months, days [4]uint32
		if err := rows.Scan(&c.Retention, &months[0], &days[0], &months[1], &days[1], &c.Sentinel, &c.Anchor, &c.KeyedBy,
			&months[2], &days[2], &c.Within, &months[3], &days[3], &c.Erasable, &c.Reason, &c.Downgrade, &c.ShortenedBy, &c.ShortenedAt); err != nil {
			return nil, wrap(op, err)
		}
		for i, span := range []*Span{&c.Promised, &c.Period, &c.After, &c.AtLeast} {
			*span = Span{int(months[i]), int(days[i])}
		}
		all = append(all, c)
	}
	return all, wrap(op, rows.Err())
}

// Affected is what another expiry would do to the rows of a class in a table.
type Affected struct {
	Table, Retention string
	Rows             uint64 // repeats included
	Moved            uint64 // of them: an anchor, an erasure or a hold has moved their expiry, which stays
	Past             uint64 // of them: readable now, and past their expiry at once
}

// Affected counts the rows of the classes, and what the expression, a DateTime made
// as the tables' expires_at is, would end of them at an instant. It changes nothing.
func (s *Store) Affected(ctx context.Context, classes []string, expires string, now time.Time) ([]Affected, error) {
	const op = "count affected rows"
	var all []Affected
	for _, kind := range event.Kinds {
		q := query{}
		q.bind("now", strconv.FormatInt(now.Unix(), 10))
		q.params = append(q.params, clickhouse.Named("classes", classes))
		rows, err := s.conn.Query(s.bounded(ctx, unhurried), `SELECT retention_class, count(), countIf(expires_override > 0),
				countIf(expires_at > toDateTime({now:UInt32}, 'UTC') AND `+expires+` <= toDateTime({now:UInt32}, 'UTC'))
			FROM `+kind.Table()+` WHERE retention_class IN {classes:Array(String)} GROUP BY retention_class ORDER BY retention_class`, q.params...)
		if err != nil {
			return nil, wrap(op, err)
		}
		for rows.Next() {
			a := Affected{Table: kind.Table()}
			if err := rows.Scan(&a.Retention, &a.Rows, &a.Moved, &a.Past); err != nil {
				rows.Close()
				return nil, wrap(op, err)
			}
			all = append(all, a)
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, wrap(op, err)
		}
	}
	return all, nil
}
