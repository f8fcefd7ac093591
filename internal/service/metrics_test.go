package service

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	yaml "go.yaml.in/yaml/v3"

	"github.com/lethe-audit/lethe/internal/budget"
	"github.com/lethe-audit/lethe/internal/certs"
	"github.com/lethe-audit/lethe/internal/certs/certstest"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/ingest"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/query"
	"github.com/lethe-audit/lethe/internal/redact"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
	"github.com/lethe-audit/lethe/schemas"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

// registered is a registry that remembers what is registered, and asks nobody.
type registered struct {
	prometheus.Registerer
	all []metric
}

type metric struct {
	name, kind, help string
	labels           []string
}

func (r *registered) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 10)
	c.Describe(descs)
	close(descs)
	for d := range descs {
		m, err := describe(c, d)
		if err != nil {
			return err
		}
		r.all = append(r.all, m)
	}
	return nil
}

var form = regexp.MustCompile(`^Desc\{fqName: (".*"), help: (".*"), unit: "", constLabels: \{\}, variableLabels: \{(.*)\}\}$`)

func describe(c prometheus.Collector, d *prometheus.Desc) (m metric, err error) {
	parts := form.FindStringSubmatch(d.String())
	if parts == nil {
		return m, fmt.Errorf("a metric of an unknown form: %s", d)
	}
	if m.name, err = strconv.Unquote(parts[1]); err != nil {
		return m, err
	}
	if m.help, err = strconv.Unquote(parts[2]); err != nil {
		return m, err
	}
	if parts[3] != "" {
		m.labels = strings.Split(parts[3], ",")
	}
	// What has a value already tells its type; a vector has none.
	own := prometheus.NewRegistry()
	if err := own.Register(c); err != nil {
		return m, err
	}
	families, err := own.Gather()
	if err != nil {
		return m, err
	}
	switch c.(type) {
	case *prometheus.GaugeVec:
		m.kind = "gauge"
	case *prometheus.CounterVec:
		m.kind = "counter"
	case *prometheus.HistogramVec:
		m.kind = "histogram"
	default:
		if len(families) != 1 {
			return m, fmt.Errorf("%s: %T does not tell its type", m.name, c)
		}
		m.kind = strings.ToLower(families[0].GetType().String())
	}
	return m, nil
}

// metrics makes every room that has metrics, and returns them by program. Only
// these rooms may have some: .golangci.yml says so.
func metrics(t *testing.T) (both, ingester, api []metric) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	p, err := policy.Load("../../schemas/policies/bstrapr.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.LoadIngest([]string{"POLICY_FILE=-", "GEOIP_DB=-", "SUBJECT_KEYS=k1=" + strings.Repeat("ab", 32)})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := redact.ParseKeys(string(cfg.SubjectKeys))
	if err != nil {
		t.Fatal(err)
	}
	transport, dialer, err := publish.Connect(cfg.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	d, err := daemon.New(daemon.Options{Log: log, StopTimeout: time.Second, Parts: IngestParts})
	if err != nil {
		t.Fatal(err)
	}
	var db *store.Store // nothing is asked of it
	var b, i, a registered
	if err := b.Register(d.Health()); err != nil {
		t.Fatal(err)
	}
	if _, err := budget.New(budget.Options{Brokers: cfg.Kafka.Brokers, Transport: transport, Bounds: bounds(p, cfg.Kafka), Mode: budget.Check, Metrics: &i, Log: log}); err != nil {
		t.Fatal(err)
	}
	keeper, err := retention.NewKeeper(retention.Options{Storage: facts{db}, Policy: p, Hash: keys.Fingerprints, HashOnce: keys.FingerprintsOnce, Now: time.Now, Metrics: &i, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newWatchdog(p, db, cfg, nil, &i, log); err != nil {
		t.Fatal(err)
	}
	topics := [...]string{cfg.Kafka.TopicRequest, cfg.Kafka.TopicAudit, cfg.Kafka.TopicSecurity}
	if _, err := ingest.New(ingest.Options{
		Brokers: cfg.Kafka.Brokers, Transport: transport, Dialer: dialer, Group: cfg.Group, Topics: topics, DeadTopic: cfg.Kafka.TopicDead,
		Policy: p, PolicyVersion: p.Version, NewRedactor: func() (ingest.Redactor, error) { return nil, nil }, Digest: keys.Digest,
		Storage: storage{db}, Known: keeper, Dead: new(publish.Publisher), Health: d.Health(), Metrics: &i, Log: log,
	}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(file, []byte("tokens:\n  - {name: a, role: officer, sha256: "+strings.Repeat("ab", 32)+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := query.LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	issued := certstest.New(t).Issue("localhost", time.Hour)
	certificate, err := certs.LoadPair(certs.File{Path: issued.CertFile}, certs.File{Path: issued.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := query.New(query.Options{
		Certificate: certificate,
		Rows:        db, Facts: db, Requests: db, Book: retention.NewBook(facts{db}, p, keys.Fingerprints), Prover: documents{}, Complete: func() bool { return true }, Audit: auditor{}, Policy: p, Keys: keys, Tokens: tokens, Secret: make([]byte, 32),
		OpenAPI: schemas.OpenAPI, Log: log, Metrics: &a,
	}); err != nil {
		t.Fatal(err)
	}
	return b.all, i.all, a.all
}

// rule is an alarm of docs/alerts.yml.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile("../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	return file.Groups[0].Rules
}

// selector is a metric in an expression, with its label matchers.
var selector = regexp.MustCompile(`\b(lethe_[a-z_]+?)(?:_bucket|_sum|_count)?\b(?:\{([^}]*)\})?`)

func TestMetricsPage(t *testing.T) {
	both, ingester, api := metrics(t)
	alarms := make(map[string][]string)
	for _, r := range rules(t) {
		for _, s := range selector.FindAllStringSubmatch(r.Expr, -1) {
			if !slices.Contains(alarms[s[1]], r.Alert) {
				alarms[s[1]] = append(alarms[s[1]], r.Alert)
			}
		}
	}
	var b strings.Builder
	b.WriteString(intro)
	for _, program := range []struct {
		title string
		all   []metric
	}{{"Both programs", both}, {"The ingester", ingester}, {"The query service", api}} {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | meaning | alarm |\n|---|---|---|---|---|\n", program.title)
		for _, m := range program.all {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.name, m.kind, or(strings.Join(m.labels, ", ")), m.help, or(strings.Join(alarms[m.name], ", ")))
		}
	}
	const page = "../../docs/metrics.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/metrics.md is not what the code says; write it with: go test ./internal/service -run MetricsPage -update")
	}
}

func or(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

const intro = `<!-- Written by go test ./internal/service -run MetricsPage -update. Change the help texts in the code or alerts.yml, not this page. -->
# Metrics

At /metrics of METRICS_ADDR, beside Go's and the process's own (go_*, process_*). Labels come from closed sets, from the
topics' names, or from the first hundred publishers; none holds a person, an address or a tenant. The last column names the
alarms of [alerts.yml](alerts.yml) that watch the metric; [operations.md](operations.md) says what they ask for.
`

func TestAlarmsAndOperationsNameMetricsThatExist(t *testing.T) {
	both, ingester, api := metrics(t)
	known := make(map[string]metric)
	for _, m := range slices.Concat(both, ingester, api) {
		known[m.name] = m
	}
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range selector.FindAllStringSubmatch(string(operations), -1) {
		if _, ok := known[s[1]]; !ok {
			t.Errorf("docs/operations.md speaks of %s, which there is not", s[1])
		}
	}
	names := make(map[string]bool)
	for _, r := range rules(t) {
		if names[r.Alert] || r.Annotations["summary"] == "" || !slices.Contains([]string{"page", "ticket"}, r.Labels["severity"]) {
			t.Errorf("%s: want a name of its own, a summary and the severity page or ticket", r.Alert)
		}
		names[r.Alert] = true
		if !strings.Contains(string(operations), "`"+r.Alert+"`") {
			t.Errorf("%s: docs/operations.md does not say what to do", r.Alert)
		}
		found := selector.FindAllStringSubmatch(r.Expr, -1)
		if len(found) == 0 {
			t.Errorf("%s: watches no metric", r.Alert)
		}
		for _, s := range found {
			m, ok := known[s[1]]
			if !ok {
				t.Errorf("%s: there is no metric %s; there are %v", r.Alert, s[1], slices.Sorted(maps.Keys(known)))
			}
			for _, l := range regexp.MustCompile(`(\w+)=`).FindAllStringSubmatch(s[2], -1) {
				if !slices.Contains(m.labels, l[1]) {
					t.Errorf("%s: %s has no label %s", r.Alert, m.name, l[1])
				}
			}
		}
	}
}
