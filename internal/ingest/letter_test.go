package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/redact"
)

// letters reads n messages of the dead topic's partition.
func (s *stack) letters(n int) []kafka.Message {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := kafka.DialLeader(ctx, "tcp", s.broker.Addr(), s.dead, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	var messages []kafka.Message
	for len(messages) < n {
		m, err := conn.ReadMessage(4 << 20)
		if err != nil {
			s.t.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages
}

func TestDeadLetters(t *testing.T) { onBoth(t, 1, deadLetters) }

func deadLetters(t *testing.T, s *stack) {
	const address, mail = "203.0.113.99", "someone@example.com"
	garbage := "no JSON " + address + " " + mail
	cases := []struct {
		name, value, reason, attribute, form string
		holds                                string
	}{
		{"not JSON", garbage, "not_json", "", "coordinates", fmt.Sprintf(`"length":%d`, len(garbage))},
		{"empty", "", "empty", "", "coordinates", `"length":0`},
		{"a required attribute is missing", strings.Replace(requestEvent(1, `,"user.email":"`+mail+`"`), `"http.response.status_code":200,`, "", 1),
			"missing_attribute", "http.response.status_code", "redacted", `"client.country":"ZZ"`},
		{"a wrong type", strings.Replace(requestEvent(2, ""), `:200`, `:"two hundred"`, 1), "wrong_type", "http.response.status_code", "redacted", `"u_2"`},
		{"no class", requestEvent(3, `,"plan.tier":"unlisted"`), "unclassified", "", "redacted", `"u_3"`},
	}
	r := s.start(nil)
	for _, c := range cases {
		s.publish(s.topics[0], 0, 0, strings.ReplaceAll(c.value, "203.0.113.7", address))
	}
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], len(cases)))
	r.stop()
	for i, m := range s.letters(len(cases)) {
		c := cases[i]
		t.Run(c.name, func(t *testing.T) {
			headers := make(map[string]string)
			for _, h := range m.Headers {
				headers[h.Key] = string(h.Value)
			}
			for key, want := range map[string]string{
				"lethe-reason": c.reason, "lethe-attribute": c.attribute, "lethe-form": c.form, "lethe-topic": s.topics[0],
				"lethe-partition": "0", "lethe-offset": fmt.Sprint(i), "lethe-epoch": "0", "lethe-cluster": s.broker.ClusterID(),
			} {
				if headers[key] != want {
					t.Errorf("header %s: got %q, want %q", key, headers[key], want)
				}
			}
			if !json.Valid(m.Value) || !strings.Contains(string(m.Value), c.holds) {
				t.Errorf("got %s, want JSON with %s", m.Value, c.holds)
			}
			all := string(m.Value) + fmt.Sprint(headers)
			if strings.Contains(all, address) || strings.Contains(all, mail) {
				t.Errorf("a dead letter holds what must not leave the source topic: %s", all)
			}
			if c.form == "coordinates" {
				keys, err := redact.ParseKeys("test=" + fmt.Sprintf("%x", "a key that is only for the tests"))
				if err != nil {
					t.Fatal(err)
				}
				var got struct{ Digest string }
				if err := json.Unmarshal(m.Value, &got); err != nil {
					t.Fatal(err)
				}
				if want := keys.Digest([]byte(c.value)); got.Digest != want && c.reason != "not_json" {
					t.Errorf("got digest %q, want %q", got.Digest, want)
				}
			}
		})
	}
	if got, want := s.query(`SELECT reason, attribute, publisher, sum(count) FROM dead_letters GROUP BY ALL ORDER BY ALL`), strings.Join([]string{
		"empty\t\tunknown\t1", "missing_attribute\thttp.response.status_code\t/svc/api\t1", "not_json\t\tunknown\t1",
		"unclassified\t\t/svc/api\t1", "wrong_type\thttp.response.status_code\t/svc/api\t1"}, "\n"); got != want {
		t.Errorf("got counts\n%s\nwant\n%s", got, want)
	}
	s.accounts(s.topics[0], len(cases), 0)
}
