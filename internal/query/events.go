package query

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/export"
)

// rangeHeader says which time range a page is about, which a caller that gave
// none cannot know.
const rangeHeader = "Lethe-Range"

// events answers GET /v1/events.
func (s *Server) events(w http.ResponseWriter, r *http.Request, c caller) error {
	q, err := s.parse(r.URL.RawQuery, pathEvents, nil, c)
	if err != nil {
		return err
	}
	return s.page(w, r, c, q, consultation{action: accessEvents, route: pathEvents, caller: c})
}

// subjectEvents answers GET /v1/subjects/{key}/events.
func (s *Server) subjectEvents(w http.ResponseWriter, r *http.Request, c caller) error {
	keys, err := pathKey(r)
	if err != nil {
		return err
	}
	q, err := s.parse(r.URL.RawQuery, pathSubjectEvents, keys, c)
	if err != nil {
		return err
	}
	return s.page(w, r, c, q, consultation{action: accessSubject, route: pathSubjectEvents, caller: c})
}

// page reads one page, records the consultation and sends it, in this order.
func (s *Server) page(w http.ResponseWriter, r *http.Request, c caller, q question, record consultation) (err error) {
	if record.purpose, err = purpose(r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()

	facts, err := s.facts(ctx)
	if err != nil {
		return err
	}
	q.filter.Visible = visible(facts, c, q.filter)
	// One row more than asked for tells whether there is a next page.
	found, err := s.o.Rows.Events(ctx, q.filter, q.after, q.limit+1)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	horizon, err := s.horizon(ctx, q.filter.Now)
	if err != nil {
		return err
	}
	withheld := json.RawMessage(q.withheld)
	if withheld == nil {
		if withheld, err = s.withheld(ctx, q.filter, c, facts); err != nil {
			return err
		}
	}
	next := []byte("null")
	if len(found) > q.limit {
		found = found[:q.limit]
		last := &found[q.limit-1]
		next = fmt.Appendf(nil, "%q", s.cursors.seal(q.hash, cursor{
			from: q.filter.From, to: q.filter.To, ceiling: q.filter.Ceiling, withheld: withheld,
			after: event.Position{OccurredAt: last.OccurredAt, Kind: last.Kind, Source: last.Source, ID: last.ID},
		}))
	}
	body := make([]byte, 0, 1024*(1+len(found)))
	body = append(body, `{"events":[`...)
	for i := range found {
		if i > 0 {
			body = append(body, ',', '\n')
		}
		body = export.AppendJSON(body, &found[i], export.Mask{})
	}
	body = append(append(body, `],"next_cursor":`...), next...)
	body = append(append(body, `,"horizon":`...), horizon...)
	body = append(append(body, `,"withheld":`...), withheld...)
	body = append(body, "}\n"...)

	record.people, record.extra = people(found, q.filter.Subjects), count(len(found))
	if err := s.record(r.Context(), record); err != nil {
		return err
	}
	s.metrics.rows.WithLabelValues(record.route).Add(float64(len(found)))
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set(rangeHeader, q.filter.From.Format(time.RFC3339Nano)+"/"+q.filter.To.Format(time.RFC3339Nano))
	w.Write(body)
	return nil
}
