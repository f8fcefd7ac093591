package service

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/policy"
)

// stores are what the settings say of where everything lies.
func stores(c config.Regions) []struct {
	setting, what string
	places        []string
} {
	return []struct {
		setting, what string
		places        []string
	}{
		{"CLICKHOUSE_REGION", "the database", c.ClickHouse}, {"KAFKA_REGION", "the brokers", c.Kafka},
		{"BACKUP_REGION", "the backups", c.Backups}, {"EXPORT_REGION", "the exports", c.Exports},
	}
}

// checkRegions refuses settings by which something lies where the policy's text does not
// allow it, or which do not say where it lies.
func checkRegions(p *policy.Policy, c config.Regions) error {
	if p.Regions.Silent() {
		return nil
	}
	var errs []error
	for _, s := range stores(c) {
		if len(s.places) == 0 {
			errs = append(errs, fmt.Errorf("%s is not set: the policy says where data may lie (%s); say which countries %s lie in", s.setting, promised(p), s.what))
		}
		for _, place := range s.places {
			if !p.Regions.Allows(place) {
				errs = append(errs, fmt.Errorf("%s: by the policy nothing may lie in %s (%s)", s.setting, place, promised(p)))
			}
		}
	}
	return errors.Join(errs...)
}

// checkTenants refuses a list of tenants that the policy does not foresee, and one without
// which no tenant can be told from those who are at home here.
func checkTenants(p *policy.Policy, c config.Regions, t config.Tenants) error {
	if len(t) == 0 {
		return nil
	}
	if !p.Regions.PerTenant {
		return errors.New("TENANT_REGIONS is set, but the policy lets no tenant choose: storage_regions.per_tenant is not true")
	}
	var errs []error
	for _, s := range stores(c) {
		if len(s.places) == 0 {
			errs = append(errs, fmt.Errorf("%s is not set, but TENANT_REGIONS is (%s): say which countries %s lie in", s.setting, promised(p), s.what))
		}
	}
	return errors.Join(errs...)
}

// elsewhere returns the organizations that chose a region in which not everything of this
// deployment lies.
func elsewhere(c config.Regions, t config.Tenants) map[string]bool {
	away := make(map[string]bool)
	for organization, region := range t {
		for _, s := range stores(c) {
			if slices.ContainsFunc(s.places, func(place string) bool { return !policy.Inside(place, region) }) {
				away[organization] = true
			}
		}
	}
	return away
}

// promised names the sentences about regions, in our own words.
func promised(p *policy.Policy) string {
	var about []string
	for _, s := range p.Sentences {
		if slices.ContainsFunc(s.Binds, func(path string) bool { return strings.HasPrefix(path, "storage_regions") }) {
			about = append(about, fmt.Sprintf("section %s: %s", s.Section, s.About))
		}
	}
	return strings.Join(about, "; ")
}

// tellTenants logs how many chose a region, and how many of them are not at home here.
func tellTenants(log *slog.Logger, t config.Tenants, away map[string]bool) {
	if len(t) > 0 {
		log.Info("tenants chose a region", "tenants", len(t), "elsewhere", len(away))
	}
}
