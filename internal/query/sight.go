package query

import (
	"context"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/retention"
)

// book tells what is known about retention, as fresh as the database has it.
type book interface {
	Facts(ctx context.Context) (*retention.Facts, error)
}

// facts returns what is known now. Without it nothing may be shown: who was
// erased a moment ago would be.
func (s *Server) facts(ctx context.Context) (*retention.Facts, error) {
	f, err := s.o.Book.Facts(ctx)
	if err != nil {
		return nil, &problem{problemType: errStorage, detail: "Try again in a few seconds.", err: err}
	}
	return f, nil
}

// visible returns which rows a caller may see at an instant.
func visible(f *retention.Facts, c caller, now time.Time) func(*event.Row) bool {
	officer := c.Role == Officer
	return func(r *event.Row) bool { return f.Fate(r).Visible(now, officer) }
}
