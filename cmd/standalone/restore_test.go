package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestErasedStaysErasedAfterARestore erases somebody after a backup, loses the database
// and restores that backup, which knows nothing of the erasure and has all the rows.
func TestErasedStaysErasedAfterARestore(t *testing.T) {
	const erased, other = "user:u_7", "user:u_8"
	s := newSite(t)
	for _, statement := range recipe(t, "BACKUP") {
		s.do("default", statement)
	}
	s.publish(300)
	rows := func(subject string) int {
		t.Helper()
		return number(t, s.sql("SELECT uniqExact(id) FROM request_events WHERE has(subject_keys, '"+subject+"')"))
	}
	window := "kind=request&limit=1000&from=" + s.from.Add(-time.Minute).Format(time.RFC3339)
	readable := func(subject string) int {
		t.Helper()
		return len(s.readAll(t, "/v1/subjects/"+subject+"/events?"+window))
	}
	before, others := rows(erased), rows(other)

	query := s.start([]string{"-only", "query"}, "POLICY=itskode")
	query.awaitReady()
	if got := readable(erased); got != before || before == 0 || others == 0 {
		t.Fatalf("%d of %d events are readable before anything happens", got, before)
	}
	if status, body := s.call(http.MethodPost, "/v1/erasures", `{"subjects":["`+erased+`"]}`, "Lethe-Identity-Verified: id_document"); status != http.StatusAccepted {
		t.Fatalf("erase: got %d %s", status, body)
	}
	state := func() string { t.Helper(); return s.sql("SELECT argMax(state, updated_at) FROM erasures") }
	s.eventually("the rows are moved", func() bool { return state() != "requested" })
	s.awaitComplete()
	query.interrupt()
	s.lose()
	s.restore()
	if got, known := rows(erased), s.sql("SELECT count() FROM erasures"); got == 0 || known != "0" {
		t.Fatalf("the backup has %d rows of the erased and knows %s erasures: nothing could come back", got, known)
	}

	// The query service waits by itself for what the backup lacks.
	ops := freeAddress(t)
	s.start([]string{"-only", "query"}, "POLICY=itskode", "METRICS_ADDR="+ops).awaitReady()
	if status, body := s.call(http.MethodGet, "/v1/subjects/"+erased+"/events?"+window, ""); status != http.StatusServiceUnavailable || !strings.Contains(body, "restore_unfinished") {
		t.Errorf("before the ingester has started: got %d %s, want a refusal", status, body)
	}
	if got := readyz(t, ops); !strings.Contains(got, "complete: broken: the ledger lacks") || !strings.Contains(got, "Start the ingesters") {
		t.Errorf("/readyz does not say what to do: %s", got)
	}
	s.startIngester()
	s.eventually("events are shown again", func() bool {
		status, body := s.call(http.MethodGet, "/v1/events?"+window, "")
		if status == http.StatusOK && strings.Contains(body, erased) {
			t.Fatal("the first page shows who was erased")
		}
		return status == http.StatusOK
	})
	s.awaitComplete()
	gone := func(when string) {
		t.Helper()
		if got := readable(erased); got != 0 {
			t.Errorf("%s: %d events of the erased are readable", when, got)
		}
		if got := readable(other); got != others {
			t.Errorf("%s: %d events of another are readable, want %d", when, got, others)
		}
		s.eventually(when+": the bytes are gone", func() bool {
			s.do("lethe", "OPTIMIZE TABLE request_events FINAL") // by itself it takes a minute or two
			return rows(erased) == 0
		})
	}
	gone("restored")
	if got := s.sql("SELECT count() FROM erasure_keys WHERE subject = '" + erased + "'"); got == "0" {
		t.Error("the identifiers were not found again")
	}
	if got := readyz(t, ops); !strings.HasPrefix(got, "ready") {
		t.Errorf("after the restore: got %s", got)
	}
	s.verify()

	for _, topic := range []string{"lethe.request", "lethe.audit"} {
		for p := range partitions {
			end := number(t, s.sql(fmt.Sprintf("SELECT if(count() = 0, 0, max(last) + 1) FROM ingest_ledger WHERE topic = '%s' AND partition = %d", topic, p)))
			if end == 0 {
				continue
			}
			if out, ok := s.ingest("replay", fmt.Sprintf("%s/%d", topic, p), fmt.Sprintf("0-%d", end-1)); !ok {
				t.Errorf("replay %s/%d: %s", topic, p, out)
			}
		}
	}
	gone("replayed")
	publishLoad(t, s.kafka, s.from, 0, s.events)
	s.eventually("what was published again is read", func() bool {
		return s.sql("SELECT sum(n) FROM (SELECT max(last) + 1 AS n FROM ingest_ledger WHERE topic = 'lethe.request' GROUP BY partition)") == fmt.Sprint(2*s.events)
	})
	gone("published again")
	// What was stored once and is suppressed now has two outcomes; nothing else is found.
	out, _ := s.ingest("verify", "--full")
	_, found, _ := strings.Cut(out, "FINDING")
	found, _, ok := strings.Cut(found, "\nread: ")
	if !ok {
		t.Errorf("verify prints no findings:\n%s", out)
	}
	for _, line := range strings.Split(strings.TrimSpace(found), "\n")[1:] {
		if !strings.HasPrefix(line, "conflict") || !strings.Contains(line, "stored in") || !strings.Contains(line, "suppressed in") {
			t.Errorf("verify found: %s", line)
		}
	}
	if got := state(); got == "requested" {
		t.Errorf("the erasure begins again and again")
	}
}

// call asks the API with the officer's token, whatever it answers.
func (m *machine) call(method, path, body string, headers ...string) (status int, answer string) {
	m.t.Helper()
	token, err := os.ReadFile(filepath.Join(m.dir, "token"))
	if err != nil {
		m.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(m.t.Context(), method, "http://"+m.api+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	if json.Valid([]byte(body)) {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func readyz(t *testing.T, ops string) string {
	t.Helper()
	resp, err := http.Get("http://" + ops + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestANewerCopyOfTheRequests restores what officers asked for on top of an older backup.
func TestANewerCopyOfTheRequests(t *testing.T) {
	s := newSite(t)
	query := s.start([]string{"-only", "query"}, "POLICY=itskode")
	query.awaitReady()
	hold := func(subject string) (id string) {
		t.Helper()
		status, body := s.call(http.MethodPost, "/v1/holds", `{"subjects":["`+subject+`"],"reason":"case 1"}`)
		var answer struct{ ID string }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
			t.Fatalf("hold: got %d %s", status, body)
		}
		return answer.ID
	}
	first := hold("user:u_1")
	for _, statement := range recipe(t, "BACKUP") {
		s.do("default", statement)
	}
	if status, body := s.call(http.MethodPost, "/v1/holds/"+first+"/release", ""); status != http.StatusOK {
		t.Fatalf("release: got %d %s", status, body)
	}
	hold("user:u_2")
	s.do("default", recipe(t, "BACKUP TABLE lethe.anchors")[0])
	query.interrupt()
	s.lose()
	s.restore()
	standing := func() string {
		t.Helper()
		return s.sql("SELECT arrayStringConcat(arraySort(groupArray(subjects[1])), ' ') FROM (SELECT argMax(h.subjects, h.updated_at) AS subjects FROM holds AS h GROUP BY h.hold HAVING argMax(h.released_at, h.updated_at) = 0)")
	}
	if got := standing(); got != "user:u_1" {
		t.Fatalf("the backup holds %q: nothing would be seen", got)
	}
	s.do("default", recipe(t, "RESTORE TABLE lethe.anchors")[0])
	if got := standing(); got != "user:u_2" {
		t.Errorf("held: got %q, want what the newer copy has", got)
	}
	s.startIngester()
	s.awaitComplete()
	if got := standing(); got != "user:u_2" {
		t.Errorf("held after it was read again: got %q", got)
	}
	s.verify()
}
