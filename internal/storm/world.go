package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lethe-audit/lethe/internal/store"
)

// world is where the truth can be read: Kafka, through another client than the
// programs use, the ledger, and the API.
type world struct {
	broker, cluster string
	dsn             string
	api             string // URL
}

// place is a partition, coordinate one of its records.
type place struct {
	topic     string
	partition int32
}

type coordinate struct {
	place
	offset int64
}

func (c coordinate) String() string { return fmt.Sprintf("%s/%d@%d", c.topic, c.partition, c.offset) }

// ends asks for the offsets after the last of every partition of the topics.
func (w world) ends(ctx context.Context, of ...string) (map[place]int64, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(w.broker))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	req := kmsg.NewPtrListOffsetsRequest()
	for _, topic := range of {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for n := range int32(partitions) {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = n, -1
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	res, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("ask for the ends of topics: %w", err)
	}
	ends := make(map[place]int64)
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("ask for the end of %s/%d: %w", t.Topic, p.Partition, err)
			}
			ends[place{t.Topic, p.Partition}] = p.Offset
		}
	}
	return ends, nil
}

// lag returns how many offsets the ledger accounts for, and how many it does not yet.
func (w world) lag(ctx context.Context) (done, lag int64, err error) {
	ends, err := w.ends(ctx, topics[:]...)
	if err != nil {
		return 0, 0, err
	}
	db, err := store.Open(ctx, store.Options{DSN: w.dsn})
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	known, err := db.LedgerEnds(ctx, w.cluster)
	if err != nil {
		return 0, 0, err
	}
	for _, end := range ends {
		lag += end
	}
	for _, k := range known {
		done += k.Next
	}
	return done, lag - done, nil
}

// records hands over every record of the topics up to their present ends.
func (w world) records(ctx context.Context, do func(coordinate, *kgo.Record) error, of ...string) error {
	ends, err := w.ends(ctx, of...)
	if err != nil {
		return err
	}
	from := make(map[string]map[int32]kgo.Offset)
	for p, end := range ends {
		if end == 0 {
			delete(ends, p)
			continue
		}
		if from[p.topic] == nil {
			from[p.topic] = make(map[int32]kgo.Offset)
		}
		from[p.topic][p.partition] = kgo.NewOffset().AtStart()
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(w.broker), kgo.ConsumePartitions(from))
	if err != nil {
		return err
	}
	defer client.Close()
	for len(ends) > 0 {
		fetches := client.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return fmt.Errorf("read topics: %w", err)
		}
		for r := range fetches.RecordsAll() {
			c := coordinate{place{r.Topic, r.Partition}, r.Offset}
			if end, ok := ends[c.place]; !ok || c.offset >= end {
				continue
			} else if c.offset == end-1 {
				delete(ends, c.place)
			}
			if err := do(c, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// readKafka learns what was delivered, and which dead letters there are.
func (w world) readKafka(ctx context.Context, e *evidence) error {
	err := w.records(ctx, func(c coordinate, r *kgo.Record) error {
		text := header(r, numberHeader)
		if text == "" {
			e.own++ // a consultation record of the query service
			return nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("read %s: its number is none", c)
		}
		e.delivered(n, c)
		return nil
	}, topics[:]...)
	if err != nil {
		return err
	}
	return w.records(ctx, func(c coordinate, r *kgo.Record) error {
		partition, err := strconv.ParseInt(header(r, "lethe-partition"), 10, 32)
		offset, err2 := strconv.ParseInt(header(r, "lethe-offset"), 10, 64)
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("read dead letter %s: %w", c, err)
		}
		e.letters[coordinate{place{header(r, "lethe-topic"), int32(partition)}, offset}]++
		e.leaks(r.Value)
		return nil
	}, deadTopic)
}

// readLedger learns the outcome of every offset.
func (w world) readLedger(ctx context.Context, e *evidence) error {
	db, err := store.Open(ctx, store.Options{DSN: w.dsn})
	if err != nil {
		return err
	}
	defer db.Close()
	for entry, err := range db.Entries(ctx, nil) {
		if err != nil {
			return err
		}
		e.account(&entry)
	}
	return nil
}

// answer is a page of the API, as far as it matters here.
type answer struct {
	Events []sighting
	Next   *string `json:"next_cursor"`
}

// sighting is an event as a query sees it.
type sighting struct {
	Kind, ID, Source string
	Time             time.Time
	Data             struct {
		User string `json:"user.id"`
	}
}

// readPages learns what queries see between two instants, to the last page, and
// says now and then how far it is.
func (w world) readPages(ctx context.Context, token string, from, to time.Time, e *evidence) error {
	q := url.Values{"from": {from.Format(time.RFC3339)}, "to": {to.Format(time.RFC3339)}, "limit": {"1000"}}
	told := time.Now()
	for {
		if time.Since(told) > progressEvery {
			fmt.Printf("read %d pages\n", e.pages)
			told = time.Now()
		}
		body, err := w.get(ctx, token, "/v1/events?"+q.Encode())
		if err != nil {
			return err
		}
		e.pages++
		e.leaks(body)
		var a answer
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&a); err != nil {
			return fmt.Errorf("read page: %w", err)
		}
		for _, s := range a.Events {
			e.see(s)
		}
		if a.Next == nil {
			return nil
		}
		q.Set("cursor", *a.Next)
	}
}

func (w world) get(ctx context.Context, token, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.api+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("read page: %s: %s", resp.Status, body)
	}
	return body, err
}

// gather reads everything, in an order in which each knows of what the one
// before it holds.
func (w world) gather(ctx context.Context, token string, g generator, a account) (*evidence, error) {
	e := newEvidence(g, a)
	to := time.Now().Add(24 * time.Hour)
	for _, read := range []func() error{
		func() error { return w.readPages(ctx, token, g.begin.AddDate(-1, 0, 0), to, e) },
		func() error { return w.readLedger(ctx, e) },
		func() error { return w.readKafka(ctx, e) },
	} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return e, nil
}
