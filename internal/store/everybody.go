package store

import (
	"context"
	"iter"
	"strconv"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
)

// Subjects streams all that rows which are not erased can be found by: people, and what
// rows belong to. Some of it comes more than once. ClickHouse groups on disk what does
// not fit in its memory. After an error there is nothing more, and what came is not all.
func (s *Store) Subjects(ctx context.Context) iter.Seq2[string, error] {
	// What rows belong to has few values together: they are made into subjects after
	// they were grouped.
	var columns, keys []string
	for _, b := range belongs {
		keys = append(keys, "concat('"+b.prefix+"', "+b.column+")")
	}
	for _, t := range []event.Text{event.TOrganization, event.TWorkspace, event.TProject, event.TDeployment, event.TDataCategory} {
		columns = append(columns, event.Texts[t].Column())
	}
	return func(yield func(string, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for _, kind := range event.Kinds {
			stored := " FROM " + kind.Table() + " WHERE expires_override != " + strconv.Itoa(event.ErasedOverride)
			rows, err := s.conn.Query(s.bounded(ctx, unhurried), "SELECT arrayJoin(subject_keys) AS subject"+stored+` GROUP BY subject
				UNION ALL SELECT arrayJoin([`+strings.Join(keys, ", ")+"]) FROM (SELECT DISTINCT "+strings.Join(columns, ", ")+stored+")")
			if err != nil {
				yield("", wrap("read subjects", err))
				return
			}
			for rows.Next() {
				var subject string
				if err := rows.Scan(&subject); err != nil {
					rows.Close()
					yield("", wrap("read subjects", err))
					return
				}
				if !yield(subject, nil) {
					cancel() // closing an answer reads it to its end, which the server must cut
					rows.Close()
					return
				}
			}
			rows.Close()
			if err := rows.Err(); err != nil {
				yield("", wrap("read subjects", err))
				return
			}
		}
	}
}
