package service_test

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/budget"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// loadCompose reads docker-compose.yml as `docker compose config` does: schema,
// interpolation and references are checked.
func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../../docker-compose.yml"}, cli.WithEnv([]string{
		"SUBJECT_KEYS=k1=" + strings.Repeat("ab", 32), "CLICKHOUSE_PASSWORD=example",
	}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeStartsTheServicesOnValidSettings(t *testing.T) {
	project := loadCompose(t)
	environ := func(service string) []string {
		var lines []string
		for name, value := range project.Services[service].Environment {
			if value != nil {
				lines = append(lines, name+"="+*value)
			}
		}
		return lines
	}
	if _, err := config.LoadIngest(environ("ingest")); err != nil {
		t.Errorf("the ingester would refuse its environment: %v", err)
	}
	if _, err := config.LoadQuery(environ("query")); err != nil {
		t.Errorf("the query service would refuse its environment: %v", err)
	}
}

// TestComposeTopicsFitEveryPolicy starts a broker whose topics have what the
// file makes the defaults of its broker.
func TestComposeTopicsFitEveryPolicy(t *testing.T) {
	set := loadCompose(t).Services["kafka"].Environment
	value := func(name string) string {
		if v := set[name]; v != nil {
			return *v
		}
		t.Fatalf("docker-compose.yml does not set %s", name)
		return ""
	}
	addr := embeddedtest.Kafka(t, embedded.Topic{Name: "lethe.request", Partitions: 1, Configs: map[string]string{
		"retention.ms": value("KAFKA_LOG_RETENTION_MS"), "segment.ms": value("KAFKA_LOG_ROLL_MS"),
		"message.timestamp.type": value("KAFKA_LOG_MESSAGE_TIMESTAMP_TYPE"),
	}})
	transport := new(kafka.Transport)
	defer transport.CloseIdleConnections()
	topics, err := budget.Read(t.Context(), []string{addr}, transport, "lethe.request")
	if err != nil || len(topics) != 1 {
		t.Fatalf("got %d topics, %v, want one", len(topics), err)
	}
	for _, name := range []string{"bstrapr", "infratrace", "daestro", "abstra", "itskode"} {
		p, err := policy.Load("../../schemas/policies/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		under, promise := p.ShortestPromise(event.Kinds[:]...)
		if err := topics[0].Exceeds(budget.Bound{Topic: "lethe.request", Under: under, Promise: promise}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestComposeNeedsItsSecrets(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../../docker-compose.yml"}, cli.WithEnv([]string{"CLICKHOUSE_PASSWORD=example"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := options.LoadProject(t.Context()); err == nil || !strings.Contains(err.Error(), "SUBJECT_KEYS") {
		t.Errorf("without SUBJECT_KEYS: got %v, want an error that names it", err)
	}
}

func TestComposeIsPinnedLoopbackAndHealthy(t *testing.T) {
	pinned := regexp.MustCompile(`:[0-9]+(\.[0-9]+)+$`)
	for name, s := range loadCompose(t).Services {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %q is not pinned to a version", name, s.Image)
		}
		for _, p := range s.Ports {
			if addr, err := netip.ParseAddr(p.HostIP); err != nil || !addr.IsLoopback() {
				t.Errorf("%s: port %s is not bound to loopback", name, p.Published)
			}
		}
		if s.Restart != "no" && s.HealthCheck == nil {
			t.Errorf("%s: has no health check", name)
		}
		if s.Build != nil {
			if _, err := os.Stat(s.Build.Context + "/Dockerfile"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
