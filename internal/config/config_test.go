package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// complete is the least that every program starts with.
var complete = []string{
	"POLICY_FILE=p.yaml", "GEOIP_DB=c.mmdb", "TOKENS_FILE=tokens", "SUBJECT_KEYS=k1=canary-key",
}

func with(more ...string) []string { return append(slices.Clone(complete), more...) }

func TestDefaults(t *testing.T) {
	in, err := LoadIngest(complete)
	if err != nil {
		t.Fatalf("LoadIngest: %v", err)
	}
	if got, want := in.Kafka.Brokers, []string{"127.0.0.1:9092"}; !slices.Equal(got, want) {
		t.Errorf("brokers: got %q, want %q", got, want)
	}
	if got, want := in.BatchBytes, Bytes(32<<20); got != want {
		t.Errorf("BATCH_BYTES: got %d, want %d", got, want)
	}
	if got, want := in.BatchAge, time.Second; got != want {
		t.Errorf("BATCH_AGE: got %s, want %s", got, want)
	}
	if got, want := in.Kafka.TopicDead, "lethe.dead"; got != want {
		t.Errorf("dead topic: got %q, want %q", got, want)
	}
	if got, want := string(in.SubjectKeys), "k1=canary-key"; got != want {
		t.Errorf("SUBJECT_KEYS: got %q, want %q", got, want)
	}
	if _, err := LoadQuery(complete); err != nil {
		t.Errorf("LoadQuery: %v", err)
	}
	if _, err := LoadPublish(nil); err != nil {
		t.Errorf("LoadPublish: %v", err)
	}
	if _, err := LoadStandalone(nil); err != nil {
		t.Errorf("LoadStandalone: %v", err)
	}
}

func TestValuesAreRead(t *testing.T) {
	in, err := LoadIngest(with("KAFKA_BROKERS=a:1,b:2", "KAFKA_TLS=true", "KAFKA_TLS_CA=ca.pem",
		"KAFKA_SASL_MECHANISM=scram-sha-512", "KAFKA_SASL_USERNAME=u", "KAFKA_SASL_PASSWORD=pw",
		"CLICKHOUSE_DSN=clickhouse://db:9000", "BATCH_ROWS=7", "BATCH_BYTES=1MB", "BATCH_AGE=2s", "BATCH_AGE=3s", "LOG_LEVEL=",
		"CLICKHOUSE_REGION=CA,IN", "TENANT_REGIONS=org_7=DE,a=b=EU"))
	if err != nil {
		t.Fatalf("LoadIngest: %v", err)
	}
	if got, want := in.Kafka.Brokers, []string{"a:1", "b:2"}; !slices.Equal(got, want) {
		t.Errorf("brokers: got %q, want %q", got, want)
	}
	if got, want := in.Regions.ClickHouse, []string{"CA", "IN"}; !slices.Equal(got, want) {
		t.Errorf("CLICKHOUSE_REGION: got %q, want %q", got, want)
	}
	if got, want := in.Tenants, (Tenants{"org_7": "DE", "a=b": "EU"}); !maps.Equal(got, want) {
		t.Errorf("TENANT_REGIONS: got %q, want %q", got, want)
	}
	if got, want := in.BatchRows, 7; got != want {
		t.Errorf("BATCH_ROWS: got %d, want %d", got, want)
	}
	if got, want := in.BatchBytes, Bytes(1e6); got != want {
		t.Errorf("BATCH_BYTES: got %d, want %d", got, want)
	}
	if got, want := in.BatchAge, 3*time.Second; got != want {
		t.Errorf("of two lines the later counts: got %s, want %s", got, want)
	}
	if got, want := in.Log.Level, "info"; got != want {
		t.Errorf("an empty variable is not set: got %q, want %q", got, want)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	tests := []struct {
		name    string
		environ []string
		want    []string // parts of the error
	}{
		{"missing", []string{"GEOIP_DB=x", "POLICY_FILE=y"}, []string{"SUBJECT_KEYS is not set"}},
		{"required but empty", with("SUBJECT_KEYS="), []string{"SUBJECT_KEYS is not set"}},
		{"malformed number", with("BATCH_ROWS=canary"), []string{"BATCH_ROWS is malformed: it must be a whole number"}},
		{"malformed time", with("BATCH_AGE=canary"), []string{"BATCH_AGE is malformed"}},
		{"malformed size", with("BATCH_BYTES=12canary"), []string{"BATCH_BYTES is malformed"}},
		{"malformed bool", with("KAFKA_TLS=canary"), []string{"KAFKA_TLS is malformed: it must be true or false"}},
		{"two at once", with("BATCH_ROWS=canary", "BATCH_AGE=canary", "KAFKA_BROKER=canary"), []string{"BATCH_ROWS", "BATCH_AGE", "KAFKA_BROKER is not"}},
		{"session too short", with("KAFKA_SESSION_TIMEOUT=1ms"), []string{"KAFKA_SESSION_TIMEOUT must be between 1s and 30m0s"}},
		{"unknown budget", with("KAFKA_TOPIC_BUDGET=canary"), []string{"KAFKA_TOPIC_BUDGET must be check, set or off"}},
		{"out of bounds", with("BATCH_ROWS=0"), []string{"BATCH_ROWS must be between"}},
		{"broker without port", with("KAFKA_BROKERS=canary"), []string{"KAFKA_BROKERS every broker"}},
		{"no broker", with("KAFKA_BROKERS=,"), []string{"KAFKA_BROKERS"}},
		{"bad mechanism", with("KAFKA_SASL_MECHANISM=canary"), []string{"KAFKA_SASL_MECHANISM must be"}},
		{"login without password", with("KAFKA_SASL_MECHANISM=scram-sha-256", "KAFKA_SASL_USERNAME=u"), []string{"KAFKA_SASL_PASSWORD is not set"}},
		{"password without mechanism", with("KAFKA_SASL_PASSWORD=canary"), []string{"KAFKA_SASL_PASSWORD is set but"}},
		{"readable password", with("KAFKA_SASL_MECHANISM=plain", "KAFKA_SASL_USERNAME=u", "KAFKA_SASL_PASSWORD=canary", "KAFKA_BROKERS=a:1"), []string{"KAFKA_SASL_MECHANISM is plain without KAFKA_TLS"}},
		{"CA without TLS", with("KAFKA_TLS_CA=canary"), []string{"KAFKA_TLS_CA is set but KAFKA_TLS"}},
		{"client certificate without TLS", with("KAFKA_TLS_CERT=canary", "KAFKA_TLS_KEY=canary"), []string{"KAFKA_TLS_CERT is set but KAFKA_TLS"}},
		{"client certificate without key", with("KAFKA_TLS=true", "KAFKA_TLS_CERT=canary"), []string{"KAFKA_TLS_CERT and KAFKA_TLS_KEY go together"}},
		{"CA of a database without TLS", with("CLICKHOUSE_DSN=http://u:canary@db:8123/x", "CLICKHOUSE_TLS_CA=canary"), []string{"CLICKHOUSE_TLS_CA is set but CLICKHOUSE_DSN"}},
		{"DSN scheme", with("CLICKHOUSE_DSN=canary"), []string{"CLICKHOUSE_DSN must be a URL"}},
		{"same topic twice", with("KAFKA_TOPIC_AUDIT=lethe.dead"), []string{"KAFKA_TOPIC_DEAD names the same topic as KAFKA_TOPIC_AUDIT"}},
		{"topic name", with("KAFKA_TOPIC_AUDIT=a canary"), []string{"KAFKA_TOPIC_AUDIT is not a topic name"}},
		{"address", with("METRICS_ADDR=canary"), []string{"METRICS_ADDR must be host:port"}},
		{"region", with("BACKUP_REGION=CA,canary"), []string{"BACKUP_REGION must be countries"}},
		{"region that is no code", with("KAFKA_REGION=UK"), []string{"KAFKA_REGION must be countries"}},
		{"tenant without a region", with("TENANT_REGIONS=org_canary"), []string{"TENANT_REGIONS is malformed: it must be organization=country"}},
		{"tenant twice", with("TENANT_REGIONS=org_canary=DE,org_canary=FR"), []string{"TENANT_REGIONS is malformed"}},
		{"level", with("LOG_LEVEL=canary"), []string{"LOG_LEVEL must be"}},

		{"unknown below a prefix", with("KAFKA_FROBNICATE=canary"), []string{"KAFKA_FROBNICATE is not a setting", "LETHE_ENV_IGNORE"}},
		{"letters swapped", with("BATCH_RWOS=1"), []string{"BATCH_RWOS is not a setting; did you mean BATCH_ROWS?"}},
		{"near miss without a prefix", with("LOGLEVEL=debug"), []string{"LOGLEVEL is not a setting; did you mean LOG_LEVEL?"}},
		{"lower case", with("kafka_brokers=a:1"), []string{"kafka_brokers is not a setting; did you mean KAFKA_BROKERS?"}},
		{"prefix misspelt", with("SUBJCT_KEYS=canary"), []string{"SUBJCT_KEYS is not a setting; did you mean SUBJECT_KEYS?"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := LoadIngest(tt.environ)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to contain %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows a value: %q", err)
			}
		})
	}
}

func TestForeignVariablesAreNoMistakes(t *testing.T) {
	tests := []struct {
		name    string
		environ []string
	}{
		{"a shell", []string{"PATH=/bin", "HOME=/root", "LANG=C", "HTTP_PROXY=x", "HTTPS_ADDR=x", "LOGNAME=x", "LOG_DIR=x", "DATA=x"}},
		{"kubernetes links", []string{
			"KAFKA_SERVICE_HOST=10.0.0.1", "KAFKA_SERVICE_PORT=9092", "KAFKA_SERVICE_PORT_CLIENT=9092", "KAFKA_PORT=tcp://x",
			"CLICKHOUSE_PORT_8123_TCP=tcp://x", "CLICKHOUSE_PORT_8123_TCP_ADDR=x", "KAFKA_BROKER_0_SERVICE_HOST=x",
		}},
		{"excused by name and prefix", []string{"KAFKA_OPTS=x", "CLICKHOUSE_USER=x", "CLICKHOUSE_DB=x", "LETHE_ENV_IGNORE=KAFKA_OPTS, CLICKHOUSE_*"}},
		{"settings of another program", []string{"HTTP_ADDR=x:1", "DATA_DIR=/d", "KAFKA_ADDR=x:1", "CHDB_LIB=x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := LoadIngest(with(tt.environ...)); err != nil {
				t.Errorf("got %v, want no error", err)
			}
		})
	}
}

func TestThisEnvironmentIsNoMistake(t *testing.T) {
	// The test process's own environment stands for any shell.
	var p problems
	vars := map[string]string{}
	for _, line := range os.Environ() {
		name, value, _ := strings.Cut(line, "=")
		vars[name] = value
	}
	unknown(vars, &p)
	if len(p.errs) > 0 {
		t.Errorf("got %v, want no mistakes", p.errs)
	}
}

func TestSecretIsHidden(t *testing.T) {
	s := Secret("canary")
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "all", ClickHouse{DSN: s})
	inJSON, err := json.Marshal(ClickHouse{DSN: s})
	if err != nil {
		t.Fatal(err)
	}
	for verb, got := range map[string]string{
		"%v": fmt.Sprintf("%v", s), "%+v": fmt.Sprintf("%+v", ClickHouse{DSN: s}), "%#v": fmt.Sprintf("%#v", ClickHouse{DSN: s}),
		"%q": fmt.Sprintf("%q", s), "%x": fmt.Sprintf("%x", s), "%s": fmt.Sprintf("%s", s), "%d": fmt.Sprintf("%d", s),
		"slog": log.String(), "json": string(inJSON), "print": fmt.Sprint(s),
	} {
		if strings.Contains(got, "canary") || strings.Contains(got, "63616e") {
			t.Errorf("%s shows the secret: %q", verb, got)
		}
		if !strings.Contains(got, hidden) {
			t.Errorf("%s: got %q, want it to contain %q", verb, got, hidden)
		}
	}
}

func TestBytes(t *testing.T) {
	tests := []struct {
		text string
		want Bytes
		ok   bool
	}{
		{"0", 0, true}, {"1024", 1024, true}, {"8MiB", 8 << 20, true}, {"8 MiB", 8 << 20, true}, {"1kB", 1000, true},
		{"2GB", 2e9, true}, {"", 0, false}, {"-1", 0, false}, {"1.5MiB", 0, false}, {"8mib", 0, false}, {"MiB", 0, false},
		{"9223372036854775807", 1<<63 - 1, true}, {"9223372036854775807KiB", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			var got Bytes
			err := got.UnmarshalText([]byte(tt.text))
			if (err == nil) != tt.ok || got != tt.want {
				t.Errorf("got %d, %v; want %d, ok %t", got, err, tt.want, tt.ok)
			}
			var again Bytes
			if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
				t.Errorf("String %q reads back as %d, %v", got, again, err)
			}
		})
	}
}

// TestFieldNames guards the way from the parser's error, which names a field,
// to the variable: two fields of one program MUST NOT share a name.
func TestFieldNames(t *testing.T) {
	for _, program := range programs {
		seen := map[string]bool{}
		for _, s := range settings(program) {
			if seen[s.Field] {
				t.Errorf("%s has two fields named %s", program, s.Field)
			}
			seen[s.Field] = true
			if s.Help == "" {
				t.Errorf("%s has no help", s.Name)
			}
			if strings.Contains(strings.ToLower(s.Name), "password") && s.Type != reflect.TypeFor[Secret]() {
				t.Errorf("%s is not a Secret", s.Name)
			}
		}
	}
}

// What can do without a database is not given the default one.
func TestLoadClickHouse(t *testing.T) {
	for _, c := range []struct {
		environ []string
		want    ClickHouse
		fails   bool
	}{
		{nil, ClickHouse{}, false},
		{[]string{"CLICKHOUSE_DSN=", "POLICY_FILE=x"}, ClickHouse{}, false},
		{[]string{"CLICKHOUSE_DSN=https://db", "CLICKHOUSE_TLS_CA=ca.pem"}, ClickHouse{"https://db", "ca.pem"}, false},
		{[]string{"CLICKHOUSE_DSN=db"}, ClickHouse{}, true},
		{[]string{"CLICKHOUSE_DNS=https://db"}, ClickHouse{}, true},
	} {
		got, err := LoadClickHouse(c.environ)
		if (err != nil) != c.fails || err == nil && got != c.want {
			t.Errorf("%v: got an error: %t, want %t", c.environ, err != nil, c.fails)
		}
	}
}
