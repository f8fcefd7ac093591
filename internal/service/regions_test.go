package service

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/policy"
)

func places(clickhouse, kafka, backups, exports string) config.Regions {
	list := func(s string) []string { return strings.Fields(s) }
	return config.Regions{ClickHouse: list(clickhouse), Kafka: list(kafka), Backups: list(backups), Exports: list(exports)}
}

func TestRegionsAreHeldAgainstThePolicy(t *testing.T) {
	ca := places("CA", "CA IN", "IN", "CA")
	for _, c := range []struct {
		name, policy string
		regions      config.Regions
		tenants      config.Tenants
		refused      []string // parts of the error, one for each line of it; none: it starts
	}{
		{"silent", "bstrapr", config.Regions{}, nil, nil},
		{"silent, and said all the same", "infratrace", places("DE", "DE", "DE", "DE"), nil, nil},
		{"silent", "abstra", config.Regions{}, nil, nil},
		{"nobody has chosen", "itskode", config.Regions{}, nil, nil},
		{"allowed", "daestro", ca, nil, nil},
		{"nothing said", "daestro", config.Regions{}, nil, []string{"CLICKHOUSE_REGION is not set", "KAFKA_REGION is not set", "BACKUP_REGION is not set", "EXPORT_REGION is not set"}},
		{"a member state", "daestro", places("DE", "CA", "CA", "CA"), nil, []string{"CLICKHOUSE_REGION: by the policy nothing may lie in DE (section 6: servers stand in Canada and India; section 6: nothing in the EU)"}},
		{"one of two brokers", "daestro", places("CA", "CA FR", "CA", "CA"), nil, []string{"KAFKA_REGION: by the policy nothing may lie in FR"}},
		{"backups in the union", "daestro", places("CA", "CA", "EU", "CA"), nil, []string{"BACKUP_REGION: by the policy nothing may lie in EU"}},
		{"exports neither refused nor named", "daestro", places("CA", "CA", "CA", "US"), nil, []string{"EXPORT_REGION: by the policy nothing may lie in US"}},
		{"exports not said", "daestro", places("CA", "CA", "CA", ""), nil, []string{"EXPORT_REGION is not set: the policy says where data may lie (section 6"}},

		{"a tenant at home", "itskode", places("DE", "FR", "DE", "DE"), config.Tenants{"org_7": "EU"}, nil},
		{"a tenant, and nobody knows where this is", "itskode", places("DE", "", "DE", "DE"), config.Tenants{"org_7": "EU"},
			[]string{"KAFKA_REGION is not set, but TENANT_REGIONS is (section 8: teams can choose a region)"}},
		{"a tenant whom the policy gives no choice", "daestro", ca, config.Tenants{"org_7": "CA"}, []string{"TENANT_REGIONS is set, but the policy lets no tenant choose"}},
		{"a tenant where the policy is silent", "bstrapr", ca, config.Tenants{"org_7": "CA"}, []string{"TENANT_REGIONS is set, but"}},
	} {
		t.Run(c.policy+", "+c.name, func(t *testing.T) {
			cfg := config.Ingest{PolicyFile: "../../schemas/policies/" + c.policy + ".yaml", Regions: c.regions, Tenants: c.tenants}
			_, err := loadRoute(cfg)
			if err == nil || !strings.Contains(err.Error(), "SUBJECT_KEYS") { // what is looked at next
				said := strings.Split(err.Error(), "\n")
				if len(said) != len(c.refused) {
					t.Fatalf("got %q, want %d mistakes", err, len(c.refused))
				}
				for i, want := range c.refused {
					if !strings.Contains(said[i], want) {
						t.Errorf("got %q, want %q", said[i], want)
					}
				}
			} else if len(c.refused) > 0 {
				t.Errorf("the ingester would start, want %q", c.refused)
			}
			if c.tenants != nil {
				return // the query service stores nothing
			}
			err = Query(t.Context(), new(daemon.Daemon), config.Query{PolicyFile: cfg.PolicyFile, Regions: c.regions}, nil)
			if refused := !strings.Contains(err.Error(), "SUBJECT_KEYS"); refused != (len(c.refused) > 0) {
				t.Errorf("the query service says %v, want what the ingester says", err)
			}
		})
	}
}

func TestTenantsAreAtHomeWhereEverythingLies(t *testing.T) {
	tenants := config.Tenants{"german": "DE", "european": "EU", "indian": "IN"}
	for _, c := range []struct {
		name    string
		regions config.Regions
		away    []string
	}{
		{"all in one member state", places("DE", "DE", "DE", "DE"), []string{"indian"}},
		{"backups in another", places("DE", "DE", "FR", "DE"), []string{"german", "indian"}},
		{"somewhere in the union", places("EU", "EU", "EU", "EU"), []string{"german", "indian"}},
		{"a replica outside", places("DE CH", "DE", "DE", "DE"), []string{"european", "german", "indian"}},
		{"India", places("IN", "IN", "IN", "IN"), []string{"european", "german"}},
	} {
		if got := slices.Sorted(maps.Keys(elsewhere(c.regions, tenants))); !slices.Equal(got, c.away) {
			t.Errorf("%s: got %q elsewhere, want %q", c.name, got, c.away)
		}
	}
}

// TestEverySentenceAboutRegionsIsNamed keeps promised from being empty where regions are.
func TestEverySentenceAboutRegionsIsNamed(t *testing.T) {
	for _, name := range []string{"daestro", "itskode"} {
		p, err := policy.Load("../../schemas/policies/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if promised(p) == "" {
			t.Errorf("%s: no sentence is named", name)
		}
	}
}
