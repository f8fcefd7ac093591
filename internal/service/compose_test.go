package service_test

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/lethe-audit/lethe/internal/config"
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
