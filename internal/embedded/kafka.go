package embedded

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/twmb/franz-go/pkg/kfake"
)

// Topic is a topic that the broker has from its start.
type Topic struct {
	Name       string
	Partitions int32
	// Configs are topic settings, like retention.ms. They apply when the topic is
	// made, not later.
	Configs map[string]string
}

// User is a name and password let in when there are any.
type User struct {
	// Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	Mechanism string
	Name      string
	Password  string
}

// KafkaOptions says where the broker listens and what it holds.
type KafkaOptions struct {
	// Addr is a loopback address with a port; port 0 takes a free one. Required.
	Addr string
	// DataDir keeps topics, records and committed offsets; it is made when
	// missing. Required.
	DataDir string
	// Topics are made where they are missing; what exists is left alone.
	Topics []Topic
	// Users switches SASL on.
	Users []User
	// TLS switches TLS on.
	TLS *tls.Config
	// Logger gets the broker's warnings. nil logs nothing.
	Logger *slog.Logger
}

// Kafka is a broker of one node. What it has acknowledged is on disk.
type Kafka struct {
	options KafkaOptions
	log     *slog.Logger
	cluster *kfake.Cluster
	addr    string
	id      string
}

// NewKafka checks the options. It starts nothing.
func NewKafka(options KafkaOptions) (*Kafka, error) {
	if options.DataDir == "" {
		return nil, errors.New("make Kafka broker: DataDir is required")
	}
	if err := checkLoopback(options.Addr); err != nil {
		return nil, fmt.Errorf("make Kafka broker: %w", err)
	}
	for _, topic := range options.Topics {
		if topic.Name == "" || topic.Partitions < 1 {
			return nil, fmt.Errorf("make Kafka broker: topic %q needs a name and at least one partition", topic.Name)
		}
	}
	for _, user := range options.Users {
		switch user.Mechanism {
		case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		default:
			return nil, fmt.Errorf("make Kafka broker: SASL mechanism %q is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", user.Mechanism)
		}
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &Kafka{options: options, log: options.Logger}, nil
}

// Start loads the data directory and listens until Stop.
func (k *Kafka) Start(ctx context.Context) error {
	if k.cluster != nil {
		return errors.New("start Kafka broker: it has been started")
	}
	if err := os.MkdirAll(k.options.DataDir, 0o700); err != nil {
		return fmt.Errorf("start Kafka broker: %w", err)
	}
	id, err := clusterID(k.options.DataDir)
	if err != nil {
		return fmt.Errorf("start Kafka broker: %w", err)
	}
	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID(id),
		kfake.DataDir(k.options.DataDir),
		kfake.SyncWrites(),
		kfake.WithLogger(brokerLogger{k.log}),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, network, k.options.Addr)
		}),
	}
	if k.options.TLS != nil {
		options = append(options, kfake.TLS(k.options.TLS))
	}
	if len(k.options.Users) > 0 {
		options = append(options, kfake.EnableSASL())
		for _, user := range k.options.Users {
			options = append(options, kfake.Superuser(user.Mechanism, user.Name, user.Password))
		}
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		return fmt.Errorf("start Kafka broker: %w", err)
	}
	for _, topic := range k.options.Topics {
		if cluster.TopicInfo(topic.Name) != nil {
			continue
		}
		if err := cluster.CreateTopic(topic.Name, topic.Partitions, topic.Configs); err != nil {
			cluster.Close()
			return fmt.Errorf("start Kafka broker: make topic %s: %w", topic.Name, err)
		}
	}
	k.cluster, k.id = cluster, id
	k.addr = cluster.ListenAddrs()[0]
	k.log.Info("kafka broker is listening", "addr", k.addr)
	return nil
}

// Addr is the address it listens on, once started.
func (k *Kafka) Addr() string {
	if k.cluster == nil {
		return k.options.Addr
	}
	return k.addr
}

// ClusterID is the name of the data directory's cluster, which stays the same over
// restarts.
func (k *Kafka) ClusterID() string { return k.id }

// Stop ends connections and saves what is only a shortcut to the next start:
// records and offsets are on disk already.
func (k *Kafka) Stop() {
	if k.cluster != nil {
		k.cluster.Close()
	}
}

// clusterID reads the data directory's cluster id, or makes one. kfake's own is
// the same for every directory, and a ledger of offsets needs to tell them apart.
func clusterID(dir string) (string, error) {
	path := filepath.Join(dir, "cluster.id")
	if text, err := os.ReadFile(path); err == nil {
		if id := strings.TrimSpace(string(text)); id != "" {
			return id, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read cluster id: %w", err)
	}
	var b [8]byte
	rand.Read(b[:])
	id := "lethe-" + hex.EncodeToString(b[:])
	if err := renameio.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write cluster id: %w", err)
	}
	return id, nil
}

// brokerLogger passes on warnings and errors. kfake's lower levels hold what
// clients send.
type brokerLogger struct{ log *slog.Logger }

func (l brokerLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error("kafka broker: " + fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.log.Warn("kafka broker: " + fmt.Sprintf(format, args...))
	}
}
