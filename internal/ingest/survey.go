package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/fetch"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// SurveyOptions says which topics and group a Survey looks at. All are required.
type SurveyOptions struct {
	Brokers   []string
	Transport *kafka.Transport
	Group     string
	Topics    []string
	DeadTopic string
}

// Survey looks at what an ingester works on without taking part in it.
type Survey struct {
	o       SurveyOptions
	client  *kafka.Client
	fetch   *fetch.Client
	cluster string
	parts   map[string][]int // of the topics that exist, the dead topic's included
}

// NewSurvey asks the cluster for its topics.
func NewSurvey(ctx context.Context, o SurveyOptions) (*Survey, error) {
	if len(o.Brokers) == 0 || o.Transport == nil || o.Group == "" || len(o.Topics) == 0 || o.DeadTopic == "" {
		return nil, errors.New("new survey: every option is required")
	}
	addr := kafka.TCP(o.Brokers...)
	reader, err := fetch.New(fetch.Options{Transport: o.Transport, Addr: addr})
	if err != nil {
		return nil, fmt.Errorf("new survey: %w", err)
	}
	s := &Survey{
		o: o, fetch: reader, client: &kafka.Client{Addr: addr, Transport: o.Transport, Timeout: requestTimeout},
		parts: make(map[string][]int),
	}
	m, err := s.client.Metadata(ctx, &kafka.MetadataRequest{Topics: append([]string{o.DeadTopic}, o.Topics...)})
	if err != nil {
		return nil, fmt.Errorf("ask for the topics: %w", err)
	}
	s.cluster = m.ClusterID
	for _, t := range m.Topics {
		if t.Error != nil && !errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("ask for topic %s: %w", t.Name, t.Error)
		}
		for _, p := range t.Partitions {
			s.parts[t.Name] = append(s.parts[t.Name], p.ID)
		}
	}
	return s, nil
}

// Cluster returns the cluster's id.
func (s *Survey) Cluster() string { return s.cluster }

// Committed returns the group's offset of each partition that has one. Epochs are left 0.
func (s *Survey) Committed(ctx context.Context) (map[ledger.Partition]int64, error) {
	ask := make(map[string][]int)
	for _, t := range s.o.Topics {
		if len(s.parts[t]) > 0 {
			ask[t] = s.parts[t]
		}
	}
	committed := make(map[ledger.Partition]int64)
	if len(ask) == 0 {
		return committed, nil
	}
	res, err := s.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: s.o.Group, Topics: ask})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return committed, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the group's offsets: %w", err)
	}
	for topic, parts := range res.Topics {
		for _, p := range parts {
			if p.Error != nil {
				return nil, fmt.Errorf("ask for the group's offset of %s/%d: %w", topic, p.Partition, p.Error)
			}
			if p.CommittedOffset >= 0 {
				committed[s.partition(topic, p.Partition)] = p.CommittedOffset
			}
		}
	}
	return committed, nil
}

// Behind returns the partitions of which the group has committed more than the ledger
// knows: the database came back from a backup, or with nothing, and the ingesters have
// not read again what it lacks. ends is where the ledger stands; it is asked last, so
// that what is committed meanwhile is no finding.
func (s *Survey) Behind(ctx context.Context, ends func(ctx context.Context, cluster string) ([]ledger.End, error)) ([]ledger.Partition, error) {
	committed, err := s.Committed(ctx)
	if err != nil || len(committed) == 0 {
		return nil, err
	}
	found, err := s.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	all, err := ends(ctx, s.cluster)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	known, _ := latest(all)
	var behind []ledger.Partition
	for p, offset := range committed {
		o := origin{ledger: -1, committed: offset}
		if next, ok := known[place{p.Topic, p.Partition}]; ok {
			o.ledger = next
		}
		if b := found[p]; o.ahead(bounds{b.Start, b.End}) {
			behind = append(behind, p)
		}
	}
	return behind, nil
}

func (s *Survey) partition(topic string, id int) ledger.Partition {
	return ledger.Partition{Cluster: s.cluster, Topic: topic, Partition: int32(id)}
}

// Bounds returns both ends of every partition. Epochs are left 0.
func (s *Survey) Bounds(ctx context.Context) (map[ledger.Partition]ledger.Bounds, error) {
	return s.bounds(ctx, s.o.Topics)
}

func (s *Survey) bounds(ctx context.Context, topics []string) (map[ledger.Partition]ledger.Bounds, error) {
	ask := make(map[string][]kafka.OffsetRequest)
	for _, t := range topics {
		for _, p := range s.parts[t] {
			ask[t] = append(ask[t], kafka.FirstOffsetOf(p), kafka.LastOffsetOf(p))
		}
	}
	found := make(map[ledger.Partition]ledger.Bounds)
	if len(ask) == 0 {
		return found, nil
	}
	res, err := s.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: ask})
	if err != nil {
		return nil, fmt.Errorf("ask for the ends of the partitions: %w", err)
	}
	for topic, parts := range res.Topics {
		for _, p := range parts {
			if p.Error != nil {
				return nil, fmt.Errorf("ask for the ends of %s/%d: %w", topic, p.Partition, p.Error)
			}
			found[s.partition(topic, p.Partition)] = ledger.Bounds{Start: p.FirstOffset, End: p.LastOffset}
		}
	}
	return found, nil
}

// letterMargin covers that a letter is a little older than its ledger entry.
const letterMargin = time.Minute

// Letters reads the dead topic as far as it reaches now and keeps coordinates only.
func (s *Survey) Letters(ctx context.Context) (ledger.Letters, error) {
	l := ledger.Letters{Offsets: make(map[ledger.Partition]map[int64]bool)}
	ends, err := s.bounds(ctx, []string{s.o.DeadTopic})
	if err != nil {
		return l, err
	}
	for p, b := range ends {
		oldest, err := s.readLetters(ctx, p, b, &l)
		if err != nil {
			return l, fmt.Errorf("read dead letters: %w", err)
		}
		if b.Start == 0 {
			continue // nothing has been taken from this partition
		}
		if oldest.IsZero() {
			oldest = time.Now()
		}
		if since := oldest.Add(letterMargin); since.After(l.Since) {
			l.Since = since
		}
	}
	return l, nil
}

// readLetters returns when the oldest letter of the partition came.
func (s *Survey) readLetters(ctx context.Context, p ledger.Partition, b ledger.Bounds, l *ledger.Letters) (oldest time.Time, err error) {
	var reader fetch.Reader
	var rec fetch.Record
	for at := b.Start; at < b.End; {
		answers, err := s.fetch.Fetch(ctx, []fetch.Want{{Topic: p.Topic, Partition: p.Partition, Offset: at}}, 4<<20, 4<<20)
		if err != nil {
			return oldest, err
		}
		next := at
		for i := range answers {
			a := &answers[i]
			reader.Reset(a, at)
			for more := true; more && err == nil && a.Err == nil; {
				if more, err = reader.Next(&rec); more && err == nil {
					if came, ok := addLetter(l, rec.Headers); ok && (oldest.IsZero() || came.Before(oldest)) {
						oldest = came
					}
				}
			}
			next = max(next, reader.Offset())
			err = errors.Join(err, a.Err)
			reader.Recycle()
			a.Release()
		}
		if err != nil {
			return oldest, err
		}
		if next == at {
			if err := ctx.Err(); err != nil {
				return oldest, err
			}
		}
		at = next
	}
	return oldest, nil
}

// addLetter keeps the coordinates that a letter's headers give. What is no
// letter of ours has none.
func addLetter(l *ledger.Letters, headers []fetch.Header) (came time.Time, ok bool) {
	var p ledger.Partition
	offset, fields := int64(-1), 0
	for _, h := range headers {
		var err error
		value := string(h.Value)
		switch h.Key {
		case "lethe-cluster":
			p.Cluster = value
		case "lethe-topic":
			p.Topic = value
		case "lethe-epoch":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 32)
			p.Epoch = uint32(n)
		case "lethe-partition":
			var n int64
			n, err = strconv.ParseInt(value, 10, 32)
			p.Partition = int32(n)
		case "lethe-offset":
			offset, err = strconv.ParseInt(value, 10, 64)
		case "lethe-received-at":
			came, err = time.Parse(time.RFC3339Nano, value)
		default:
			continue
		}
		if err != nil {
			return came, false
		}
		fields++
	}
	if fields < 6 {
		return came, false
	}
	l.Read++
	if l.Offsets[p] == nil {
		l.Offsets[p] = make(map[int64]bool)
	}
	l.Offsets[p][offset] = true
	return came, true
}

// NewEpoch returns the entries that begin the topic's next epoch: for every
// partition an empty one at the start of its log, so that it is read again from
// there. It sets the group's offsets to the same places. ends is where the
// ledger stands. An ingester at work is refused: it would go on in the old epoch.
func (s *Survey) NewEpoch(ctx context.Context, topic string, ends []ledger.End, now time.Time) ([]ledger.Entry, error) {
	if !slices.Contains(s.o.Topics, topic) || len(s.parts[topic]) == 0 {
		return nil, fmt.Errorf("begin new epoch: %s is no topic of events that Kafka has", topic)
	}
	groups, err := s.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{s.o.Group}})
	if err != nil {
		return nil, fmt.Errorf("describe consumer group: %w", err)
	}
	for _, g := range groups.Groups {
		if len(g.Members) > 0 {
			return nil, fmt.Errorf("begin new epoch: %d ingesters are at work; stop them first", len(g.Members))
		}
	}
	_, epochs := latest(ends)
	bounds, err := s.bounds(ctx, []string{topic})
	if err != nil {
		return nil, err
	}
	var entries []ledger.Entry
	var commits []kafka.OffsetCommit
	for p, b := range bounds {
		if _, known := epochs[topic]; known {
			p.Epoch = epochs[topic] + 1
		}
		entries = append(entries, ledger.Entry{Partition: p, First: b.Start, Last: b.Start - 1, ReceivedAt: now})
		commits = append(commits, kafka.OffsetCommit{Partition: int(p.Partition), Offset: b.Start})
	}
	res, err := s.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: s.o.Group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: commits},
	})
	if err != nil {
		return nil, fmt.Errorf("reset the group's offsets: %w", err)
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("reset the group's offset of %s/%d: %w", topic, p.Partition, p.Error)
		}
	}
	return entries, nil
}
