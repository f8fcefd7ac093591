package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// document is what the tests read of a proof.
type document struct {
	Format, Result string
	Verified       struct {
		Ran      bool
		Findings int
	}
	Faults    []struct{ Kind, Text string }
	Sentences []struct{ Section, Verdict, Why string }
	Mapping   []struct{ Kind, Stored string }
	Topics    []struct{ Name, Says string }
}

func (d *document) kinds() []string {
	var list []string
	for _, f := range d.Faults {
		list = append(list, f.Kind)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// newSigningKey writes a key as openssl genpkey does.
func newSigningKey(t *testing.T) (file string, public ed25519.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "proof.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, public
}

// TestPolicyProve plants what only a whole stack has: a topic that was changed, and rows
// that went with a part.
func TestPolicyProve(t *testing.T) {
	m := newMachine(t)
	m.environ[slices.Index(m.environ, "KAFKA_TOPIC_BUDGET=off")] = "KAFKA_TOPIC_BUDGET=set"
	m.reviewed()
	m.publish(0, 30, time.Hour)
	m.publish(30, 40, 50*time.Hour)
	m.ingest(40)
	file := filepath.Join(t.TempDir(), "proof.json")
	prove := func(status int, says []string, args ...string) (d document) {
		t.Helper()
		m.expect(status, says, append([]string{"policy", "prove", "--json", file}, args...)...)
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &d)
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := prove(0, []string{"nothing is broken, and nobody has signed off", "the document is not signed: PROOF_KEY_FILE is not set",
		"every offset that was consumed is accounted for", "request/without@30d"})
	if d.Format != "lethe-proof-1" || d.Result != "unsigned" || !d.Verified.Ran || d.Verified.Findings != 0 || len(d.Topics) != 4 || len(d.Mapping) != 1 {
		t.Errorf("got %+v", d)
	}
	if _, err := os.Stat(file + ".sig"); err == nil {
		t.Error("without a key there is a signature")
	}
	m.expect(0, []string{"green: nothing is broken"}, "policy", "prove", "--signed-off", file)

	key, public := newSigningKey(t)
	m.environ = append(m.environ, "PROOF_KEY_FILE="+key)
	prove(0, []string{"BEGIN PUBLIC KEY", ".sig"})
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := os.ReadFile(file + ".sig")
	if err != nil || !ed25519.Verify(public, data, signature) {
		t.Errorf("the signature does not fit the document: %v", err)
	}
	if ed25519.Verify(public, []byte(strings.Replace(string(data), `"unsigned"`, `"green"`, 1)), signature) {
		t.Error("the signature fits another document")
	}

	receipts := filepath.Join(t.TempDir(), "receipts.json")
	m.expect(0, []string{"0 rows expired and gone, 0 rows left", "BEGIN PUBLIC KEY"}, "policy", "receipts", "--from", "2020-01-01", "--json", receipts)
	data, err = os.ReadFile(receipts)
	if err != nil {
		t.Fatal(err)
	}
	if signature, err = os.ReadFile(receipts + ".sig"); err != nil || !ed25519.Verify(public, data, signature) {
		t.Errorf("the signature does not fit the receipts: %v", err)
	}

	// A topic's retention raised.
	transport := new(kafka.Transport)
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(m.broker), Transport: transport}
	set := func(ms string) {
		t.Helper()
		res, err := client.IncrementalAlterConfigs(t.Context(), &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{
			{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: ms}}}}})
		if err != nil || res.Resources[0].Error != nil {
			t.Fatal(err, res)
		}
	}
	set("8640000000") // a hundred days
	d = prove(1, []string{"topic lethe.request must forget", "BROKEN", "ingest: the policy is not proved"})
	if got := d.kinds(); !slices.Equal(got, []string{"topic"}) || !slices.ContainsFunc(d.Sentences, func(s struct{ Section, Verdict, Why string }) bool {
		return s.Verdict == "broken" && strings.Contains(s.Why, "topic lethe.request")
	}) {
		t.Errorf("got %v and %+v", got, d.Sentences)
	}
	set("86400000")

	// A part detached: it is named, and so are the rows that it took.
	m.sql("ALTER TABLE request_events DETACH PART '" + m.one("SELECT _part FROM request_events WHERE src_offset = 33") + "'")
	d = prove(1, []string{"request_events has 1 detached parts", "30-39", "the ledger and the rows do not agree"})
	if got := d.kinds(); !slices.Equal(got, []string{"detached", "ledger"}) {
		t.Errorf("got %v", got)
	}
	m.sql("ALTER TABLE request_events ATTACH PART '" + m.one("SELECT name FROM system.detached_parts WHERE database = currentDatabase()") + "'")
	prove(0, []string{"nothing is broken"})

	// The document alone on the output, the signature elsewhere.
	cmd, _ := m.command("policy", "prove", "--json", "-")
	var notes strings.Builder
	cmd.Stdout, cmd.Stderr = nil, &notes
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err, notes.String())
	}
	_, rest, _ := strings.Cut(notes.String(), "base64): ")
	encoded, _, _ := strings.Cut(rest, "\n")
	if signature, err := base64.StdEncoding.DecodeString(encoded); err != nil || !ed25519.Verify(public, out, signature) {
		t.Errorf("the signature of the output: %v\n%s", err, notes.String())
	}
}

// reviewed gives the policy file a review that is to come: its own will be over one day.
func (m *machine) reviewed() {
	m.t.Helper()
	i := slices.IndexFunc(m.environ, func(s string) bool { return strings.HasPrefix(s, "POLICY_FILE=") })
	data, err := os.ReadFile(strings.TrimPrefix(m.environ[i], "POLICY_FILE="))
	if err != nil {
		m.t.Fatal(err)
	}
	file := filepath.Join(m.t.TempDir(), "policy.yaml")
	data = regexp.MustCompile(`review: [0-9-]+`).ReplaceAll(data, []byte("review: "+time.Now().AddDate(1, 0, 0).Format(time.DateOnly)))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.environ[i] = "POLICY_FILE=" + file
}

// one is the answer to a question.
func (m *machine) one(statement string) string {
	m.t.Helper()
	answer, err := m.ask(statement)
	if err != nil {
		m.t.Fatalf("%s: %v", statement, err)
	}
	return answer
}
