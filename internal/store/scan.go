package store

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/event"
)

// selected are the columns of a row, per kind. Times and numbers come as plain
// integers and floats, which the client reads without a look at their type.
var selected = func() (lists [event.NumKinds]string) {
	for _, kind := range event.Kinds {
		columns := []string{
			"toUnixTimestamp64Milli(occurred_at)", "toUnixTimestamp64Milli(received_at)", "source", "id", "type",
			"retention_class", "toInt32(bucket)", "toUInt32(retained_from)", "expires_override", "toUInt32(expires_at)", "policy_version",
			"src_topic", "src_partition", "src_offset", "subject_keys", "target_owner_id",
			"trace_id", "span_id", "mapKeys(metadata)", "mapValues(metadata)",
		}
		for _, f := range event.Texts {
			if f.Kinds.Has(kind) {
				columns = append(columns, f.Column())
			}
		}
		for _, f := range event.Numbers {
			if f.Kinds.Has(kind) {
				columns = append(columns, "ifNull(toFloat64("+f.Column()+"), nan)")
			}
		}
		lists[kind] = strings.Join(columns, ", ")
	}
	return lists
}()

// scanner turns the answer to a SELECT of those columns into rows.
type scanner struct {
	kind   event.Kind
	target []any

	occurred, received          int64
	retained, override, expires uint32
	trace, span                 string
	subjects, owners            []string
	keys, values                []string
}

// scan reads the next row into a fresh one.
func (s *scanner) scan(rows driver.Rows) (*event.Row, error) {
	r := &event.Row{Kind: s.kind}
	for i := range r.Number {
		r.Number[i] = math.NaN()
	}
	s.subjects, s.owners, s.keys, s.values = nil, nil, nil, nil
	s.target = append(s.target[:0],
		&s.occurred, &s.received, &r.Source, &r.ID, &r.Type,
		&r.Retention, &r.Bucket, &s.retained, &s.override, &s.expires, &r.PolicyVersion,
		&r.Topic, &r.Partition, &r.Offset, &s.subjects, &s.owners,
		&s.trace, &s.span, &s.keys, &s.values)
	for i, f := range event.Texts {
		if f.Kinds.Has(s.kind) {
			s.target = append(s.target, &r.Text[i])
		}
	}
	for i, f := range event.Numbers {
		if f.Kinds.Has(s.kind) {
			s.target = append(s.target, &r.Number[i])
		}
	}
	if err := rows.Scan(s.target...); err != nil {
		return nil, err
	}
	r.OccurredAt = time.UnixMilli(s.occurred).UTC()
	r.ReceivedAt = time.UnixMilli(s.received).UTC()
	r.RetainedFrom = time.Unix(int64(s.retained), 0).UTC()
	r.ExpiresOverride = s.override
	r.ExpiresAt = time.Unix(int64(s.expires), 0).UTC()
	copy(r.TraceID[:], s.trace)
	copy(r.SpanID[:], s.span)
	r.SubjectKeys, r.Owners = s.subjects, s.owners
	for i, key := range s.keys {
		r.Metadata = append(r.Metadata, event.Pair{Key: key, Value: s.values[i]})
	}
	return r, nil
}

// same reports that two rows of one table are the same event: readers show one.
func same(a, b *event.Row) bool {
	return a.Kind == b.Kind && a.OccurredAt.Equal(b.OccurredAt) && a.ID == b.ID && a.Source == b.Source
}

// collect reads all rows of an answer.
func collect[T any](ctx context.Context, s *Store, op, text string, params []any, scan func(driver.Rows) (T, error)) ([]T, error) {
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), text, params...)
	if err != nil {
		return nil, wrap(op, err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, wrap(op, err)
		}
		all = append(all, one)
	}
	return all, wrap(op, rows.Err())
}
