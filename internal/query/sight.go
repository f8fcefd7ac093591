package query

import (
	"context"
	"slices"

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

// visible returns which rows a caller may see at an instant, and takes out of them
// those of its people whom the caller may not see. Then the row has to be what was
// asked for still: nobody finds it by what was taken out.
func visible(f *retention.Facts, c caller, asked event.Filter) func(*event.Row) bool {
	officer := c.Role == Officer
	return func(r *event.Row) bool {
		fate := f.Fate(r)
		if !fate.Visible(asked.Now, officer) {
			return false
		}
		people := fate.Without(asked.Now, officer)
		if len(people) == 0 {
			return true
		}
		retention.Strip(r, people)
		return found(r, asked)
	}
}

// found reports whether a row is what was asked for, as far as that could have been
// taken out of it.
func found(r *event.Row, asked event.Filter) bool {
	is := func(t event.Text, want string) bool { return want == "" || r.Text[t] == want }
	return is(event.TUserID, asked.User) && is(event.TCountry, asked.Country) &&
		(asked.TraceID == [16]byte{} || r.TraceID == asked.TraceID) &&
		(len(asked.Subjects) == 0 || slices.ContainsFunc(asked.Subjects, func(k string) bool { return slices.Contains(r.SubjectKeys, k) }))
}
