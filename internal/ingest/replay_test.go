package ingest

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/publish/replay"
	"github.com/lethe-audit/lethe/internal/redact"
)

// replay publishes the dead letters of a reason again; change may alter the options.
func (s *stack) replay(state, reason string, change ...func(*replay.Options)) replay.Result {
	s.t.Helper()
	transport := s.transport()
	p, err := publish.New(publish.Options{Brokers: s.kafka.Brokers, Transport: transport})
	if err != nil {
		s.t.Fatal(err)
	}
	defer p.Close()
	o := replay.Options{
		Brokers: s.kafka.Brokers, Transport: transport, Publisher: p, DeadTopic: s.dead, Topics: s.topics[:],
		Reason: reason, StatePath: state, Patience: 10 * time.Second,
	}
	for _, f := range change {
		f(&o)
	}
	r, err := replay.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	result, err := r.Run(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return result
}

// withoutEnterprise is the policy of the tests before it got a period for a tier.
func withoutEnterprise(t *testing.T) *policy.Policy {
	t.Helper()
	text, err := os.ReadFile("../../schemas/policies/itskode.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse("before.yaml", []byte(strings.ReplaceAll(string(text), ", enterprise: 90d", "")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReplay(t *testing.T) { onBoth(t, 1, deadLettersReturn) }

func deadLettersReturn(t *testing.T, s *stack) {
	const address, mail, session = "8.8.8.8", "someone@example.com", "a cookie's value"
	keys, err := redact.ParseKeys("test=" + hex.EncodeToString([]byte("a key that is only for the tests")))
	if err != nil {
		t.Fatal(err)
	}
	person := fmt.Sprintf(`,"user.email":"%s","session.id":"%s","device.id":"by %s","user_agent.original":"Mozilla/5.0 (X11; Linux x86_64; rv:27.0) Gecko/20100101 Firefox/27.0"`, mail, session, mail)
	person = strings.Replace(person, `"user_agent.original"`, `"metadata":{"note":"from `+address+`"},"user_agent.original"`, 1)
	values := []string{
		strings.ReplaceAll(requestEvent(1, person+`,"plan.tier":"enterprise"`), "203.0.113.7", address),
		strings.ReplaceAll(requestEvent(2, person), "203.0.113.7", address), // what is never dead, to compare with
		"no JSON " + address + " " + mail,
	}
	s.publish(s.topics[0], 0, 0, values...)
	first := s.start(func(o *Options) { o.Policy = withoutEnterprise(t) })
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], len(values)))
	first.stop()

	state := filepath.Join(t.TempDir(), "state.json")
	if got := s.replay(state, reasonUnclassified); len(got.Counts) != 1 || got.Counts[0] != (replay.Count{Reason: reasonUnclassified, Publisher: "/svc/api", Replayed: 1}) {
		t.Fatalf("got %+v", got)
	}
	if got := s.replay(state, reasonUnclassified); len(got.Counts) != 0 {
		t.Errorf("the same again: got %+v, want nothing", got)
	}
	if got := s.replay(state, ""); got.Sum.Replayed != 1 || got.Counts[0].Reason != "not_json" {
		t.Errorf("the rest: got %+v, want the one that is no JSON", got)
	}

	second := s.start(nil)
	eventually(t, "the replays in the ledger", s.done(s.topics[0], len(values)+2))
	second.stop()

	const facts = `client_country, user_agent_name, user_agent_version, user_agent_os, user_email, session_id, device_id, metadata, source, src_topic`
	read := func(id int) string {
		return s.query(`SELECT %s FROM request_events FINAL WHERE id = 'e-%d'`, facts, id)
	}
	want := read(2)
	for _, part := range []string{"DE\tFirefox\t27\tLinux", keys.Email(mail)[0], keys.Session(session)[0], "by [email]"} {
		if !strings.Contains(want, part) {
			t.Errorf("the event that was never dead: got %q, want it to hold %q", want, part)
		}
	}
	if got := read(1); got != want {
		t.Errorf("a replayed event differs from one that was never dead:\ngot  %s\nwant %s", got, want)
	}
	people := func(id int) string {
		return s.query(`SELECT arrayStringConcat(arraySort(arrayFilter(k -> k NOT LIKE 'user:%%', subject_keys)), ' ') FROM request_events FINAL WHERE id = 'e-%d'`, id)
	}
	if got, want := people(1), people(2); got != want || !strings.Contains(got, "email:"+keys.Email(mail)[0]) {
		t.Errorf("the people of a replayed event: got %s, want %s", got, want)
	}
	// The garbage was read again and is dead again; the replayed letter is not.
	letters := s.letters(3)
	for n, reason := range []string{reasonUnclassified, "not_json", "not_json"} {
		if got := string(letters[n].Headers[0].Value); got != reason {
			t.Errorf("letter %d: got reason %q, want %q", n, got, reason)
		}
	}
	s.accounts(s.topics[0], len(values)+2, 2)
	s.nothingRaw(address, mail, session)
}

// nothingRaw looks for texts in every stored column.
func (s *stack) nothingRaw(texts ...string) {
	s.t.Helper()
	all := s.query(`SELECT * FROM request_events FORMAT JSONEachRow`) + s.query(`SELECT * FROM dead_letters FORMAT JSONEachRow`)
	for _, text := range texts {
		if strings.Contains(all, text) {
			s.t.Errorf("%q is stored", text)
		}
	}
}

func TestAForgedLetterIsRedactedInFull(t *testing.T) {
	const mail = "someone@example.com"
	keys, err := redact.ParseKeys("test=" + hex.EncodeToString([]byte("a key that is only for the tests")))
	if err != nil {
		t.Fatal(err)
	}
	looksHashed := "test:" + strings.Repeat("0", 32)
	forged := func(id int, email string) []byte {
		return fmt.Appendf(nil, `{"specversion":"1.0","id":"f-%d","source":"/svc/api","type":"t","time":"%s","letheredacted":true,
"data":{"http.request.method":"GET","http.response.status_code":200,"client.country":"198.51.100.7","user_agent.name":"198.51.100.7","user.email":"%s","session.id":"198.51.100.7",
"lethe.subject_keys":["user:someone else","email:someone@example.com"]}}`, id, time.Now().UTC().Format(time.RFC3339), email)
	}
	s := newStack(t, 1)
	p, err := publish.New(publish.Options{Brokers: s.kafka.Brokers, Transport: s.transport()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for n, seal := range []string{"", looksHashed, keys.Digest(forged(2, looksHashed))} {
		value := forged(n, looksHashed)
		if n == 0 {
			value = forged(n, mail)
		}
		err := p.Publish(t.Context(), publish.Message{Topic: topics[0], Value: value, Headers: []publish.Header{
			{Key: headerSeal, Value: []byte(seal)}, {Key: "lethe-replayed", Value: []byte("lethe.dead/0/0")}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(topics[0], 3))
	r.stop()
	s.nothingRaw(mail, "198.51.100.7", "someone else", looksHashed)
	got := s.query(`SELECT id, client_country, user_agent_name, user_email FROM request_events FINAL ORDER BY id`)
	want := strings.Join([]string{
		"f-0\t\t\t" + keys.Email(mail)[0], "f-1\t\t\t" + keys.Email(looksHashed)[0], "f-2\t\t\t" + keys.Email(looksHashed)[0]}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
