package query

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/export"
	"github.com/lethe-audit/lethe/internal/retention"
)

// methodForm is how an identity may be said to have been verified: a short word.
var methodForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$`)

// export answers GET /v1/subjects/{key}/export: what a person gets who asks
// what is held about them, as a ZIP that streams.
func (s *Server) export(w http.ResponseWriter, r *http.Request, c caller) error {
	keys, err := pathKey(r)
	if err != nil {
		return err
	}
	p, err := parseParameters(r.URL.RawQuery)
	if err != nil {
		return err
	}
	keys = alsoKeys(p, keys)
	if err := p.done(); err != nil {
		return err
	}
	why, err := purpose(r)
	if err != nil || why == notStated {
		return errNoPurpose.because("An export needs the header " + purposeHeader + ", such as access_request; the API description lists its values.")
	}
	if !methodForm.MatchString(r.Header.Get(verifiedHeader)) {
		return errNotVerified.because("An export needs the header " + verifiedHeader + " with the method by which the person's identity was verified, such as id_document.")
	}

	now := s.now()
	order := export.Order{Keys: keys, Now: now, Notice: s.notice}
	facts, err := s.exportHead(r.Context(), &order, c)
	if err != nil {
		return err
	}
	record := consultation{action: accessExport, route: pathExport, purpose: why, caller: c, people: keys,
		extra: map[string]string{"phase": "begin", "identity_verified": r.Header.Get(verifiedHeader)}}
	if err := s.record(r.Context(), record); err != nil {
		return err
	}

	h := w.Header()
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Disposition", `attachment; filename="lethe-export-`+now.Format(time.DateOnly)+`.zip"`)
	// From here on an error reaches mux after the first byte: it cuts the connection.
	w.WriteHeader(http.StatusOK)
	out := &rolling{w: w, control: http.NewResponseController(w)}
	rows := s.o.Rows.SubjectRows(r.Context(), keys, now, visible(facts, c, event.Filter{Subjects: keys, Now: now}))
	return export.Write(out, order, ofTenant(rows, c.Organization), func(n uint64) error {
		s.metrics.rows.WithLabelValues(pathExport).Add(float64(n))
		record.extra = map[string]string{"phase": "end", "rows": strconv.FormatUint(n, 10), "identity_verified": record.extra["identity_verified"]}
		return s.record(r.Context(), record)
	})
}

// exportHead reads what the manifest says besides the rows, and what decides of them.
func (s *Server) exportHead(ctx context.Context, o *export.Order, c caller) (facts *retention.Facts, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if facts, err = s.facts(ctx); err != nil {
		return nil, err
	}
	if o.Horizon, err = s.horizon(ctx, o.Now); err != nil {
		return nil, err
	}
	o.Withheld, err = s.withheld(ctx, event.Filter{
		From: firstInstant, To: lastInstant, Now: o.Now, Subjects: o.Keys, Tenant: c.Organization,
	}, c, facts)
	return facts, err
}

// ofTenant passes on the rows of one organization; all where it is empty.
func ofTenant(rows iter.Seq2[*event.Row, error], organization string) iter.Seq2[*event.Row, error] {
	if organization == "" {
		return rows
	}
	return func(yield func(*event.Row, error) bool) {
		for r, err := range rows {
			if err == nil && r.Text[event.TOrganization] != organization {
				continue
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// rolling moves the write deadline on while bytes flow: an export takes as long
// as it takes, a reader that stops reading does not.
type rolling struct {
	w       http.ResponseWriter
	control *http.ResponseController
	next    time.Time
}

func (r *rolling) Write(p []byte) (int, error) {
	if now := time.Now(); now.After(r.next) {
		r.next = now.Add(time.Second)
		// A connection without deadlines is a test's; there is nothing to move.
		_ = r.control.SetWriteDeadline(now.Add(writeTimeout))
	}
	n, err := r.w.Write(p)
	if err != nil {
		return n, fmt.Errorf("send export: %w", err)
	}
	return n, nil
}
