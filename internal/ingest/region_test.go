package ingest

import (
	"fmt"
	"strings"
	"testing"
)

// TestTenantsOfAnotherRegion stores nothing of an organization that chose another
// region, whatever is wrong with its events, but the records of who looked for it here.
func TestTenantsOfAnotherRegion(t *testing.T) {
	s := newStack(t, 1)
	r := s.start(func(o *Options) { o.Elsewhere = map[string]bool{"org_2": true} })
	malformed := strings.Replace(requestEvent(7, ""), `:200`, `:"two hundred"`, 1)
	s.publish(s.topics[0], 0, 0, append(requestEvents(0, 5), malformed)...) // org_0 to org_4, and org_2 again
	audit := func(action string) string {
		e := strings.Replace(requestEvent(12, `,"event.action":"`+action+`","event.outcome":"success"`), "request.completed", "audit", 1)
		return strings.NewReplacer(`"http.request.method":"GET","http.response.status_code":200,"url.path":"/v1/things/12",`, "").Replace(e)
	}
	s.publish(s.topics[1], 0, 0, audit("account.deleted"), audit("lethe.access.events"))
	eventually(t, "all requests in the ledger", s.done(s.topics[0], 6))
	eventually(t, "all audit events in the ledger", s.done(s.topics[1], 2))
	r.stop()
	for table, want := range map[string]string{"request_events": "org_0 org_1 org_3 org_4", "audit_events": "org_2"} {
		if got := s.query("SELECT arrayStringConcat(arraySort(groupArray(organization_id)), ' ') FROM %s", table); got != want {
			t.Errorf("%s: got rows of %s, want %s", table, got, want)
		}
	}
	if got := s.query("SELECT toString(event_action) FROM audit_events"); got != "lethe.access.events" {
		t.Errorf("got an audit event %q, want the record of a consultation", got)
	}
	if got := s.query("SELECT count() FROM anchors"); got != "0" {
		t.Errorf("got %s facts, want none of a tenant elsewhere", got)
	}
	if got, want := s.query("SELECT reason, attribute, sum(count) FROM dead_letters GROUP BY ALL ORDER BY ALL"),
		"region\torganization.id\t2\nwrong_type\thttp.response.status_code\t1"; got != want {
		t.Errorf("got dead letters\n%s\nwant\n%s", got, want)
	}
	for _, m := range s.letters(3) {
		if all := fmt.Sprintf("%s %s", m.Value, m.Headers); !strings.Contains(all, "coordinates") || strings.Contains(all, "org_2") || strings.Contains(all, "u_") {
			t.Errorf("a dead letter of a tenant elsewhere holds more than where the record is: %s", all)
		}
	}
}
