package query

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// TestNothingIsShownOfAnIncompleteDatabase asks for rows while a restored database
// lacks what came after its backup. Requests to erase and to hold are taken.
func TestNothingIsShownOfAnIncompleteDatabase(t *testing.T) {
	var complete atomic.Bool
	d := open(t, func(o *Options) { o.Complete = complete.Load })
	d.insert(row(event.Request, "one", "u_1", "org_1", time.Minute))
	readers := map[string][]string{
		"/v1/events": nil, "/v1/subjects/user:u_1/events": {purposeHeader, "access_request"},
		"/v1/subjects/user:u_1/export": {purposeHeader, "access_request", verifiedHeader, "id_document"},
	}
	for path, headers := range readers {
		a := d.ask(http.MethodGet, "officer", path, "", headers...)
		if a.status != http.StatusServiceUnavailable || a.problem() != "restore_unfinished" {
			t.Errorf("%s: got %d %s, want a refusal", path, a.status, a.body)
		}
		if a := d.ask(http.MethodGet, "", path, "", headers...); a.status != http.StatusUnauthorized {
			t.Errorf("%s without a token: got %d", path, a.status)
		}
	}
	if got := d.recorder.take(t); len(got) > 0 {
		t.Errorf("what was not shown is recorded: %+v", got)
	}
	d.holding("/v1/holds", `{"subjects":["user:u_1"],"reason":"case 1"}`)
	d.erasing(`{"subjects":["user:u_2"]}`)
	complete.Store(true)
	for path, headers := range readers {
		if a := d.ask(http.MethodGet, "officer", path, "", headers...); a.status != http.StatusOK {
			t.Errorf("%s of a complete database: got %d %s", path, a.status, a.body)
		}
	}
}
