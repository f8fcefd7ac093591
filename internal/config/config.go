// Package config reads the settings of the services from environment
// variables into typed structs, and says in one sentence per mistake which
// variable is wrong. It opens no file and no connection: what a setting points
// at is checked by the room that uses it.
//
// The structs are the reference: their tags name the variable, the default and
// the explanation that docs/config.md shows. No error of this package holds a
// value, because a value may be a secret or stand in the wrong variable.
package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/policy"
)

// Kafka says how to reach the brokers, and which topics hold what.
type Kafka struct {
	Brokers       []string `env:"KAFKA_BROKERS" envDefault:"127.0.0.1:9092" help:"Brokers to ask for the cluster, host:port, separated by commas."`
	TLS           bool     `env:"KAFKA_TLS" envDefault:"false" help:"Encrypt connections to the brokers and check their certificates."`
	TLSCA         string   `env:"KAFKA_TLS_CA" help:"PEM file of the authorities that may sign the brokers' certificates; without it the system's. Needs KAFKA_TLS."`
	TLSServerName string   `env:"KAFKA_TLS_SERVER_NAME" help:"Name that the brokers' certificates must carry, where it is not the name in KAFKA_BROKERS. Needs KAFKA_TLS."`
	ClientCert    string   `env:"KAFKA_TLS_CERT" help:"PEM file of the certificate to show to brokers that ask for one; it is read again for every connection. Needs KAFKA_TLS and KAFKA_TLS_KEY."`
	ClientKey     string   `env:"KAFKA_TLS_KEY" help:"PEM file of that certificate's key. Needs KAFKA_TLS_CERT."`
	SASLMechanism string   `env:"KAFKA_SASL_MECHANISM" help:"plain, scram-sha-256 or scram-sha-512; without it, no login. plain needs KAFKA_TLS unless every broker is on this machine."`
	SASLUsername  string   `env:"KAFKA_SASL_USERNAME" help:"Name to log in with. Needs KAFKA_SASL_MECHANISM."`
	SASLPassword  Secret   `env:"KAFKA_SASL_PASSWORD" help:"Password to log in with. Needs KAFKA_SASL_MECHANISM."`
	TopicRequest  string   `env:"KAFKA_TOPIC_REQUEST" envDefault:"lethe.request" help:"Topic of request events."`
	TopicAudit    string   `env:"KAFKA_TOPIC_AUDIT" envDefault:"lethe.audit" help:"Topic of audit events."`
	TopicSecurity string   `env:"KAFKA_TOPIC_SECURITY" envDefault:"lethe.security" help:"Topic of security events."`
	TopicDead     string   `env:"KAFKA_TOPIC_DEAD" envDefault:"lethe.dead" help:"Topic of dead letters."`
}

func (k *Kafka) validate(p *problems) {
	loopback := true
	for _, b := range k.Brokers {
		host, port, err := net.SplitHostPort(b)
		if err != nil || host == "" || port == "" {
			p.add("KAFKA_BROKERS", "every broker must be host:port, separated by commas")
			break
		}
		loopback = loopback && isLoopback(host)
	}
	if len(k.Brokers) == 0 {
		p.add("KAFKA_BROKERS", "names no broker")
	}
	if !k.TLS && k.TLSCA != "" {
		p.add("KAFKA_TLS_CA", "is set but KAFKA_TLS is not true")
	}
	if !k.TLS && k.TLSServerName != "" {
		p.add("KAFKA_TLS_SERVER_NAME", "is set but KAFKA_TLS is not true")
	}
	if !k.TLS && k.ClientCert != "" {
		p.add("KAFKA_TLS_CERT", "is set but KAFKA_TLS is not true")
	}
	if (k.ClientCert == "") != (k.ClientKey == "") {
		p.add("KAFKA_TLS_CERT", "and KAFKA_TLS_KEY go together: one of them is not set")
	}
	switch k.SASLMechanism {
	case "":
		if k.SASLUsername != "" {
			p.add("KAFKA_SASL_USERNAME", "is set but KAFKA_SASL_MECHANISM is not")
		}
		if k.SASLPassword != "" {
			p.add("KAFKA_SASL_PASSWORD", "is set but KAFKA_SASL_MECHANISM is not")
		}
	case "plain", "scram-sha-256", "scram-sha-512":
		if k.SASLUsername == "" {
			p.add("KAFKA_SASL_USERNAME", "is not set but KAFKA_SASL_MECHANISM is")
		}
		if k.SASLPassword == "" {
			p.add("KAFKA_SASL_PASSWORD", "is not set but KAFKA_SASL_MECHANISM is")
		}
		if k.SASLMechanism == "plain" && !k.TLS && !loopback {
			p.add("KAFKA_SASL_MECHANISM", "is plain without KAFKA_TLS: the password would cross the network readable")
		}
	default:
		p.add("KAFKA_SASL_MECHANISM", "must be plain, scram-sha-256 or scram-sha-512")
	}
	topics := []struct{ name, value string }{
		{"KAFKA_TOPIC_REQUEST", k.TopicRequest}, {"KAFKA_TOPIC_AUDIT", k.TopicAudit},
		{"KAFKA_TOPIC_SECURITY", k.TopicSecurity}, {"KAFKA_TOPIC_DEAD", k.TopicDead},
	}
	for i, t := range topics {
		if !topicName(t.value) {
			p.add(t.name, "is not a topic name: 1 to 249 letters, digits, dots, dashes and underscores")
		}
		for _, u := range topics[:i] {
			if t.value == u.value {
				p.add(t.name, "names the same topic as "+u.name)
			}
		}
	}
}

// ClickHouse says how to reach the database.
type ClickHouse struct {
	DSN         Secret `env:"CLICKHOUSE_DSN" envDefault:"http://127.0.0.1:8123/default" help:"Database as a URL: http, https or clickhouse, with user and password where it needs them."`
	Authorities string `env:"CLICKHOUSE_TLS_CA" help:"PEM file of the authorities that may sign the database's certificate; without it the system's. Needs a CLICKHOUSE_DSN with https://, or clickhouse:// and secure=true."`
}

func (c *ClickHouse) validate(p *problems) {
	scheme, rest, ok := strings.Cut(string(c.DSN), "://")
	if !ok || rest == "" || (scheme != "http" && scheme != "https" && scheme != "clickhouse") {
		p.add("CLICKHOUSE_DSN", "must be a URL that starts with http://, https:// or clickhouse://")
	}
	if c.Authorities != "" && scheme == "http" {
		p.add("CLICKHOUSE_TLS_CA", "is set but CLICKHOUSE_DSN starts with http://")
	}
}

// Regions says where the stores lie. Lethe believes it: nothing inside can show it.
type Regions struct {
	ClickHouse []string `env:"CLICKHOUSE_REGION" help:"Countries that the database lies in, replicas included: two capital letters each, or EU, separated by commas. Required where the policy says where data may lie; a country that it does not allow stops the start."`
	Kafka      []string `env:"KAFKA_REGION" help:"The same for the brokers."`
	Backups    []string `env:"BACKUP_REGION" help:"The same for the backups of the database."`
	Exports    []string `env:"EXPORT_REGION" help:"The same for whatever keeps exported files."`
}

func (r *Regions) validate(p *problems) {
	for _, s := range []struct {
		name   string
		places []string
	}{{"CLICKHOUSE_REGION", r.ClickHouse}, {"KAFKA_REGION", r.Kafka}, {"BACKUP_REGION", r.Backups}, {"EXPORT_REGION", r.Exports}} {
		if slices.ContainsFunc(s.places, func(place string) bool { return !policy.IsRegion(place) }) {
			p.add(s.name, "must be countries, two capital letters each, or EU, separated by commas")
		}
	}
}

// Tenants says which region each organization has chosen.
type Tenants map[string]string

// UnmarshalText reads organization=region, separated by commas.
func (t *Tenants) UnmarshalText(text []byte) error {
	*t = make(Tenants)
	for entry := range strings.SplitSeq(string(text), ",") {
		at := strings.LastIndexByte(entry, '=')
		if at <= 0 || !policy.IsRegion(entry[at+1:]) || (*t)[entry[:at]] != "" {
			return errors.New("not organization=region")
		}
		(*t)[entry[:at]] = entry[at+1:]
	}
	return nil
}

// Log says what a service logs and how.
type Log struct {
	Level  string `env:"LOG_LEVEL" envDefault:"info" help:"Least level that is logged: debug, info, warn or error."`
	Format string `env:"LOG_FORMAT" envDefault:"json" help:"json, one object a line, or text."`
}

func (l *Log) validate(p *problems) {
	switch l.Level {
	case "debug", "info", "warn", "error":
	default:
		p.add("LOG_LEVEL", "must be debug, info, warn or error")
	}
	if l.Format != "json" && l.Format != "text" {
		p.add("LOG_FORMAT", "must be json or text")
	}
}

// Ingest holds the settings of the ingester.
type Ingest struct {
	Kafka      Kafka
	ClickHouse ClickHouse
	Regions    Regions
	Log        Log

	TopicBudget    string        `env:"KAFKA_TOPIC_BUDGET" envDefault:"check" help:"What to do about a topic whose settings let it keep a record until the policy's shortest promise is broken. check: refuse to start, with the numbers; set: change the topic's settings to what fits, which may remove old records; off: do not look, for brokers that do not keep to their settings."`
	Group          string        `env:"KAFKA_GROUP" envDefault:"lethe-ingest" help:"Consumer group of the ingesters."`
	SessionTimeout time.Duration `env:"KAFKA_SESSION_TIMEOUT" envDefault:"30s" help:"Time after which the brokers take the partitions of a silent ingester away. Shorter: sooner another goes on; longer: pauses of the machine or the network cost nothing. Brokers allow 6s to 30m unless told otherwise."`
	PolicyFile     string        `env:"POLICY_FILE,required" help:"Policy file that decides how long everything is kept."`
	PolicyShortens string        `env:"POLICY_SHORTENS" help:"Version of the policy file, where it may shorten what older files promised to stored rows: rows past the shorter period are destroyed. Without it such a file stops the start, which names the version; ingest policy diff counts the rows."`
	ProofKeyFile   string        `env:"PROOF_KEY_FILE" help:"PEM file of the Ed25519 key that signs proofs; without it they are not signed, and say so."`
	Tenants        Tenants       `env:"TENANT_REGIONS" help:"Organizations that chose where their data lie, as organization=country (or EU), separated by commas. Events of one that did not choose where this deployment lies become dead letters, which hold nothing of the event. Needs a policy that lets tenants choose, and the four settings that say where the stores lie."`
	GeoIPDB        string        `env:"GEOIP_DB,required" help:"Country database in MMDB format; it is read again when the file changes."`
	SubjectKeys    Secret        `env:"SUBJECT_KEYS,required" help:"Keys that hash e-mails and session ids, as id=key, separated by commas; each key has at least 32 bytes, in hex or base64. The first one writes, all of them find."`
	BatchRows      int           `env:"BATCH_ROWS" envDefault:"100000" help:"Rows after which a batch is inserted."`
	BatchBytes     Bytes         `env:"BATCH_BYTES" envDefault:"32MiB" help:"Bytes in memory after which a batch is inserted."`
	BatchAge       time.Duration `env:"BATCH_AGE" envDefault:"1s" help:"Age at which a batch is inserted, however small."`
	FetchBytes     Bytes         `env:"FETCH_BYTES" envDefault:"8MiB" help:"Bytes asked of a broker at a time, and held in memory, before they are worked on."`
	MemoryLimit    Bytes         `env:"MEMORY_LIMIT" envDefault:"200MiB" help:"Memory the process aims to stay below: the closer it comes, the harder the garbage collector works. Grows with BATCH_BYTES, FETCH_BYTES and the number of cores."`
	StopTimeout    time.Duration `env:"STOP_TIMEOUT" envDefault:"25s" help:"Time a stop may take: the last batch is finished or left for the next start."`
	SweepEvery     time.Duration `env:"SWEEP_EVERY" envDefault:"1h" help:"How often the rows of deleted accounts and the like are compared with what is known of them, and their expiry moved. New holds, erasures and restorations do not wait for it. Must be shorter than the policy's grace."`
	MetricsAddr    string        `env:"METRICS_ADDR" envDefault:"127.0.0.1:9464" help:"Address of /metrics, /healthz and /readyz; profiles too where it is a loopback address."`
}

func (c *Ingest) validate(p *problems) {
	c.Kafka.validate(p)
	c.ClickHouse.validate(p)
	c.Regions.validate(p)
	c.Log.validate(p)
	topicBudget(p, c.TopicBudget)
	if c.Group == "" {
		p.add("KAFKA_GROUP", "is empty")
	}
	if c.BatchRows < 1 || c.BatchRows > 10_000_000 {
		p.add("BATCH_ROWS", "must be between 1 and 10000000")
	}
	between(p, "BATCH_BYTES", c.BatchBytes, 64<<10, 4<<30)
	between(p, "FETCH_BYTES", c.FetchBytes, 64<<10, 1<<30)
	between(p, "MEMORY_LIMIT", c.MemoryLimit, 64<<20, 1<<40)
	spans(p, "BATCH_AGE", c.BatchAge, 10*time.Millisecond, 10*time.Minute)
	spans(p, "KAFKA_SESSION_TIMEOUT", c.SessionTimeout, time.Second, 30*time.Minute)
	spans(p, "STOP_TIMEOUT", c.StopTimeout, time.Second, 10*time.Minute)
	spans(p, "SWEEP_EVERY", c.SweepEvery, time.Second, 24*time.Hour)
	address(p, "METRICS_ADDR", c.MetricsAddr)
}

// Query holds the settings of the query service. It publishes its consultation
// records to Kafka.
type Query struct {
	Kafka      Kafka
	ClickHouse ClickHouse
	Regions    Regions
	Log        Log

	Group        string        `env:"KAFKA_GROUP" envDefault:"lethe-ingest" help:"Consumer group of the ingesters: events are shown while the ledger has all that it has committed, which a restored database has not."`
	TopicBudget  string        `env:"KAFKA_TOPIC_BUDGET" envDefault:"check" help:"As the ingesters': with off, exports say that the greatest age of data in topics is unknown."`
	PolicyFile   string        `env:"POLICY_FILE,required" help:"Policy file that the ingesters use."`
	ProofKeyFile string        `env:"PROOF_KEY_FILE" help:"PEM file of the Ed25519 key that signs proofs; without it they are not signed, and say so."`
	SubjectKeys  Secret        `env:"SUBJECT_KEYS,required" help:"The keys that the ingesters use, in the same form."`
	HTTPAddr     string        `env:"HTTP_ADDR" envDefault:"127.0.0.1:8080" help:"Address of the API."`
	TLSCert      string        `env:"HTTP_TLS_CERT" help:"PEM file of the API's certificate; without it the API speaks plain HTTP, for loopback or behind a front door. It is read again at SIGHUP. Needs HTTP_TLS_KEY."`
	TLSKey       string        `env:"HTTP_TLS_KEY" help:"PEM file of the certificate's key. Needs HTTP_TLS_CERT."`
	TokensFile   string        `env:"TOKENS_FILE,required" help:"File of hashed bearer tokens with their roles and tenants."`
	StopTimeout  time.Duration `env:"STOP_TIMEOUT" envDefault:"25s" help:"Time a stop may take: requests are finished or cut off."`
	MetricsAddr  string        `env:"METRICS_ADDR" envDefault:"127.0.0.1:9465" help:"Address of /metrics, /healthz and /readyz; profiles too where it is a loopback address."`
}

func (c *Query) validate(p *problems) {
	c.Kafka.validate(p)
	c.ClickHouse.validate(p)
	c.Regions.validate(p)
	c.Log.validate(p)
	topicBudget(p, c.TopicBudget)
	if c.Group == "" {
		p.add("KAFKA_GROUP", "is empty")
	}
	spans(p, "STOP_TIMEOUT", c.StopTimeout, time.Second, 10*time.Minute)
	address(p, "HTTP_ADDR", c.HTTPAddr)
	address(p, "METRICS_ADDR", c.MetricsAddr)
	if (c.TLSCert == "") != (c.TLSKey == "") {
		p.add("HTTP_TLS_CERT", "and HTTP_TLS_KEY go together: one of them is not set")
	}
}

// Publish holds the settings of the publishing command.
type Publish struct {
	Kafka Kafka
}

func (c *Publish) validate(p *problems) { c.Kafka.validate(p) }

// Standalone holds the settings of the one-process stack. The settings of the
// services it contains are read from the same environment.
type Standalone struct {
	Log Log

	DataDir        string `env:"DATA_DIR" envDefault:".lethe" help:"Folder of the embedded broker and database, the log and the token."`
	KafkaAddr      string `env:"KAFKA_ADDR" envDefault:"127.0.0.1:9092" help:"Address of the embedded broker."`
	ClickHouseAddr string `env:"CLICKHOUSE_ADDR" envDefault:"127.0.0.1:8123" help:"Address of the embedded database."`
	HTTPAddr       string `env:"HTTP_ADDR" envDefault:"127.0.0.1:8080" help:"Address of the API."`
	MetricsAddr    string `env:"METRICS_ADDR" envDefault:"127.0.0.1:0" help:"Address of /metrics, /healthz and /readyz of the whole stack; port 0 takes a free one."`
	Policy         string `env:"POLICY" envDefault:"bstrapr" help:"Policy to run on: the name of an example, or the path of a file."`
	AccessLog      string `env:"LOG" help:"Access log to load instead of the bundled sample."`
	GeoIPDB        string `env:"GEOIP_DB" help:"Country database to use instead of the fetched one."`
	CHDBLib        string `env:"CHDB_LIB" help:"libchdb to use instead of the fetched one."`
}

func (c *Standalone) validate(p *problems) {
	c.Log.validate(p)
	if c.DataDir == "" {
		p.add("DATA_DIR", "is empty")
	}
	address(p, "KAFKA_ADDR", c.KafkaAddr)
	address(p, "CLICKHOUSE_ADDR", c.ClickHouseAddr)
	address(p, "HTTP_ADDR", c.HTTPAddr)
	address(p, "METRICS_ADDR", c.MetricsAddr)
}

// LoadIngest reads the ingester's settings from lines of NAME=value, such as
// os.Environ(); of two lines with one name the later counts.
func LoadIngest(environ []string) (c Ingest, err error) {
	err = load(environ, &c, c.validate)
	return c, err
}

// LoadPolicyFile reads the one setting of what looks at the policy file alone, out of
// the ingester's environment.
func LoadPolicyFile(environ []string) (path string, err error) {
	var c struct {
		PolicyFile string `env:"POLICY_FILE,required"`
	}
	err = load(environ, &c, func(*problems) {})
	return c.PolicyFile, err
}

// LoadClickHouse reads how to reach the database, out of the ingester's environment.
// Without CLICKHOUSE_DSN the DSN is empty: there is no database to ask.
func LoadClickHouse(environ []string) (c ClickHouse, err error) {
	var given struct {
		DSN         Secret `env:"CLICKHOUSE_DSN"`
		Authorities string `env:"CLICKHOUSE_TLS_CA"`
	}
	err = load(environ, &given, func(p *problems) {
		if c = (ClickHouse{given.DSN, given.Authorities}); c.DSN != "" {
			c.validate(p)
		}
	})
	return c, err
}

// LoadQuery reads the query service's settings as LoadIngest does.
func LoadQuery(environ []string) (c Query, err error) {
	err = load(environ, &c, c.validate)
	return c, err
}

// LoadPublish reads the publishing command's settings as LoadIngest does.
func LoadPublish(environ []string) (c Publish, err error) {
	err = load(environ, &c, c.validate)
	return c, err
}

// LoadStandalone reads the standalone stack's settings as LoadIngest does.
func LoadStandalone(environ []string) (c Standalone, err error) {
	err = load(environ, &c, c.validate)
	return c, err
}

func topicBudget(p *problems, v string) {
	if v != "check" && v != "set" && v != "off" {
		p.add("KAFKA_TOPIC_BUDGET", "must be check, set or off")
	}
}

func between(p *problems, name string, v, least, most Bytes) {
	if v < least || v > most {
		p.add(name, fmt.Sprintf("must be between %s and %s", least, most))
	}
}

func spans(p *problems, name string, v, least, most time.Duration) {
	if v < least || v > most {
		p.add(name, fmt.Sprintf("must be between %s and %s", least, most))
	}
}

func address(p *problems, name, v string) {
	if _, port, err := net.SplitHostPort(v); err != nil || port == "" {
		p.add(name, "must be host:port, such as 127.0.0.1:8080")
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func topicName(s string) bool {
	if s == "" || len(s) > 249 || s == "." || s == ".." {
		return false
	}
	for _, r := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r) {
			return false
		}
	}
	return true
}
