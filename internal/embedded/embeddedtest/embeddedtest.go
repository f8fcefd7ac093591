// Package embeddedtest gives tests a real Kafka protocol and a real ClickHouse
// engine. It is for tests only. Nothing is mocked, and a missing engine fails the
// test with a sentence that says what to do.
package embeddedtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/embedded"
)

// One process has one engine. It runs while any test uses it, and its data goes
// with the last.
var shared struct {
	sync.Mutex
	users  int
	engine *embedded.Engine
	door   *embedded.ClickHouse
	dir    string
}

// ClickHouse returns the DSN of a new, empty database for clickhouse-go, like
// http://127.0.0.1:40123/test_1a2b3c. The host part is a ClickHouse HTTP endpoint
// for anything else. The database is dropped when the test ends.
func ClickHouse(t testing.TB) string {
	t.Helper()
	base := endpoint(t)
	var b [6]byte
	rand.Read(b[:])
	database := "test_" + hex.EncodeToString(b[:])
	post(t, base, "CREATE DATABASE "+database)
	t.Cleanup(func() { post(t, base, "DROP DATABASE "+database+" SYNC") })
	return base + "/" + database
}

// Door opens another HTTP endpoint to the engine behind ClickHouse, with the
// user, password, TLS and address of the options. It closes when the test ends;
// a test may Stop it before.
func Door(t testing.TB, options embedded.ClickHouseOptions) *embedded.ClickHouse {
	t.Helper()
	endpoint(t)
	options.Engine = shared.engine
	door, err := embedded.NewClickHouse(options)
	if err == nil {
		err = door.Start(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := door.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return door
}

// endpoint takes a share in the engine, given back when the test ends.
func endpoint(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.users == 0 {
		if err := start(); err != nil {
			t.Fatal(err)
		}
	}
	shared.users++
	t.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.users--; shared.users == 0 {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return "http://" + shared.door.Addr()
}

func start() error {
	library, err := embedded.LibraryPath()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lethe-clickhouse-")
	if err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	engine, err := embedded.OpenEngine(embedded.EngineOptions{Library: library, DataDir: dir})
	if err != nil {
		os.RemoveAll(dir)
		return err
	}
	door, err := embedded.NewClickHouse(embedded.ClickHouseOptions{Engine: engine, Addr: "127.0.0.1:0"})
	if err == nil {
		err = door.Start(context.Background())
	}
	if err != nil {
		engine.Close()
		os.RemoveAll(dir)
		return err
	}
	shared.engine, shared.door, shared.dir = engine, door, dir
	return nil
}

func stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := shared.door.Stop(ctx); err != nil {
		return err
	}
	if err := shared.engine.Close(); err != nil {
		return err
	}
	return os.RemoveAll(shared.dir)
}

func post(t testing.TB, base, statement string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: time.Minute}
	answer, err := client.Post(base, "text/plain", strings.NewReader(statement))
	if err != nil {
		t.Errorf("%s: %v", statement, err)
		return
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", statement, text)
	}
}

// Kafka returns the address of a new broker with the given topics and data of its
// own. It stops when the test ends. Topics that are not given are made as on a
// broker without automatic creation: by a CreateTopics request.
func Kafka(t testing.TB, topics ...embedded.Topic) string {
	t.Helper()
	return Broker(t, t.TempDir(), "127.0.0.1:0", topics...).Addr()
}

// Broker is Kafka with a data directory and an address to come back to, for tests
// that restart it.
func Broker(t testing.TB, dir, addr string, topics ...embedded.Topic) *embedded.Kafka {
	t.Helper()
	broker, err := embedded.NewKafka(embedded.KafkaOptions{Addr: addr, DataDir: dir, Topics: topics})
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Stop)
	return broker
}
