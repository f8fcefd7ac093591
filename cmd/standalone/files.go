package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/fetch"
	"github.com/lethe-audit/lethe/schemas"
)

// files are the places in the data folder.
type files struct{ dir string }

func (f files) kafka() string      { return filepath.Join(f.dir, "kafka") }
func (f files) clickhouse() string { return filepath.Join(f.dir, "clickhouse") }
func (f files) backups() string    { return filepath.Join(f.dir, "backups") }
func (f files) logs() string       { return filepath.Join(f.dir, "log") }
func (f files) token() string      { return filepath.Join(f.dir, "token") }
func (f files) tokens() string     { return filepath.Join(f.dir, "tokens.yaml") }
func (f files) keys() string       { return filepath.Join(f.dir, "subject-keys") }
func (f files) policy() string     { return filepath.Join(f.dir, "policy.yaml") }
func (f files) sample() string     { return filepath.Join(f.dir, "sample") }

// decide settles what the services would ask of an operator: addresses, the
// policy, the country database, the keys and a token. What the user set in the
// environment for a service, such as BATCH_ROWS, stays.
func (s *stack) decide() error {
	if !s.parts.ingest && !s.parts.query {
		return nil
	}
	policy, err := policyFile(s.cfg.Policy, s.files.policy())
	if err != nil {
		return err
	}
	keys, err := secret(s.files.keys(), func(random string) string { return "k1=" + random })
	if err != nil {
		return fmt.Errorf("make subject keys: %w", err)
	}
	if err := s.makeToken(); err != nil {
		return fmt.Errorf("make token: %w", err)
	}
	country := s.cfg.GeoIPDB
	if country == "" {
		cache, err := embedded.CacheDir()
		if err != nil {
			return fmt.Errorf("find the country database: %w; set GEOIP_DB to its path", err)
		}
		country = filepath.Join(cache, fetch.CountryFile)
		if _, err := os.Stat(country); err != nil {
			return fmt.Errorf("there is no country database at %s: run `make fetch`, or set GEOIP_DB", country)
		}
	}
	// The embedded broker does not forget as its settings say: there is nothing to
	// hold against the policy, and exports say "unknown". A user's own word counts.
	s.environ = append([]string{"KAFKA_TOPIC_BUDGET=off"}, s.environ...)
	s.environ = append(s.environ,
		"KAFKA_BROKERS="+s.cfg.KafkaAddr,
		"CLICKHOUSE_DSN=http://"+s.cfg.ClickHouseAddr+"/lethe",
		"HTTP_ADDR="+s.cfg.HTTPAddr,
		"METRICS_ADDR="+s.cfg.MetricsAddr,
		"POLICY_FILE="+policy,
		"GEOIP_DB="+country,
		"TOKENS_FILE="+s.files.tokens(),
	)
	if _, set := os.LookupEnv("SUBJECT_KEYS"); !set {
		s.environ = append(s.environ, "SUBJECT_KEYS="+keys)
	}
	return nil
}

// policyFile returns the path of the policy: name as it is when it is a path,
// else a copy of the bundled example of that name at to.
func policyFile(name, to string) (string, error) {
	if strings.ContainsAny(name, `/\`) || strings.HasSuffix(name, ".yaml") {
		return filepath.Abs(name)
	}
	text, err := fs.ReadFile(schemas.Policies, "policies/"+name+".yaml")
	if err != nil {
		known, _ := fs.Glob(schemas.Policies, "policies/*.yaml")
		for i, k := range known {
			known[i] = strings.TrimSuffix(filepath.Base(k), ".yaml")
		}
		return "", fmt.Errorf("POLICY: there is no example policy %q; there are %s, or give the path of a file", name, strings.Join(known, ", "))
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		return "", fmt.Errorf("write policy: %w", err)
	}
	return to, nil
}

// makeToken makes the officer's token once, and the file of hashed tokens that
// the query service reads.
func (s *stack) makeToken() error {
	token, err := secret(s.files.token(), func(random string) string { return "lethe_" + random })
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(token))
	text := "tokens:\n  - {name: officer, role: officer, sha256: " + hex.EncodeToString(sum[:]) + "}\n"
	return os.WriteFile(s.files.tokens(), []byte(text), 0o600)
}

// secret reads the file, or makes it from 32 random bytes.
func secret(file string, form func(random string) string) (string, error) {
	text, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", err
	}
	value := form(hex.EncodeToString(random[:]))
	return value, os.WriteFile(file, []byte(value+"\n"), 0o600)
}
