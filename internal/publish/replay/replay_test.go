package replay_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/publish/replay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	deadTopic = "lethe.dead"
	request   = "lethe.request"
	audit     = "lethe.audit"
)

var dawn = time.Date(2026, 1, 31, 6, 0, 0, 0, time.UTC)

// field is a broker with a dead topic and the topics of the events.
type field struct {
	t         *testing.T
	broker    *embedded.Kafka
	transport *kafka.Transport
	publisher *publish.Publisher
	state     string
}

func newField(t *testing.T) *field {
	t.Helper()
	f := &field{t: t, state: filepath.Join(t.TempDir(), "state.json")}
	f.broker = embeddedtest.Broker(t, t.TempDir(), "127.0.0.1:0",
		embedded.Topic{Name: deadTopic, Partitions: 1}, embedded.Topic{Name: request, Partitions: 1}, embedded.Topic{Name: audit, Partitions: 1})
	var err error
	if f.transport, _, err = publish.Connect(config.Kafka{}); err != nil {
		t.Fatal(err)
	}
	if f.publisher, err = publish.New(publish.Options{Brokers: []string{f.broker.Addr()}, Transport: f.transport}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.publisher.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *field) publish(msgs ...publish.Message) {
	f.t.Helper()
	for _, m := range msgs { // one batch each
		if err := f.publisher.Publish(f.t.Context(), m); err != nil {
			f.t.Fatal(err)
		}
	}
}

// letter is a dead letter as the ingester writes it; length −1: redacted.
func (f *field) letter(reason, topic string, offset, length int, received time.Time) publish.Message {
	form, value := "coordinates", fmt.Sprintf(`{"length":%d}`, length)
	var more []publish.Header
	if length < 0 {
		form, value = "redacted", `{"letheredacted":true,"source":"/svc/api","data":{"organization.id":"org_7"}}`
		more = []publish.Header{{Key: "lethe-seal", Value: []byte("k1:00")}, {Key: "content-type", Value: []byte("application/cloudevents+json")}}
	}
	h := []publish.Header{}
	for _, x := range [][2]string{
		{"lethe-reason", reason}, {"lethe-topic", topic}, {"lethe-partition", "0"}, {"lethe-offset", fmt.Sprint(offset)},
		{"lethe-cluster", f.broker.ClusterID()}, {"lethe-received-at", received.Format(time.RFC3339Nano)}, {"lethe-form", form},
	} {
		h = append(h, publish.Header{Key: x[0], Value: []byte(x[1])})
	}
	return publish.Message{Topic: deadTopic, Value: []byte(value), Headers: append(h, more...)}
}

// run replays; change may alter the options.
func (f *field) run(change func(*replay.Options)) replay.Result {
	f.t.Helper()
	result, err := f.try(f.t.Context(), change)
	if err != nil {
		f.t.Fatal(err)
	}
	return result
}

func (f *field) try(ctx context.Context, change func(*replay.Options)) (replay.Result, error) {
	f.t.Helper()
	o := replay.Options{
		Brokers: []string{f.broker.Addr()}, Transport: f.transport, Publisher: f.publisher,
		DeadTopic: deadTopic, Topics: []string{request, audit}, StatePath: f.state, Patience: 5 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	r, err := replay.New(o)
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Run(ctx)
}

// read returns a topic's messages.
func (f *field) read(topic string) []kafka.Message {
	f.t.Helper()
	conn, err := kafka.DialLeader(f.t.Context(), "tcp", f.broker.Addr(), topic, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	first, end, err := conn.ReadOffsets()
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := conn.Seek(first, kafka.SeekAbsolute); err != nil {
		f.t.Fatal(err)
	}
	var list []kafka.Message
	for at := first; at < end; {
		batch := conn.ReadBatch(1, 4<<20)
		for {
			m, err := batch.ReadMessage()
			if err != nil {
				break
			}
			list = append(list, m)
			at = m.Offset + 1
		}
		if err := batch.Close(); err != nil {
			f.t.Fatal(err)
		}
	}
	return list
}

// retire makes the log of a topic begin at an offset, as retention does.
func (f *field) retire(topic string, offset int64) {
	f.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.broker.Addr()))
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewDeleteRecordsRequest()
	part := kmsg.DeleteRecordsRequestTopicPartition{Partition: 0, Offset: offset}
	req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{part}}}
	req.TimeoutMillis = 5000
	res, err := req.RequestWith(f.t.Context(), client)
	if err != nil {
		f.t.Fatal(err)
	}
	if code := res.Topics[0].Partitions[0].ErrorCode; code != 0 {
		f.t.Fatalf("delete records: error %d", code)
	}
}

func TestEachLetterHasItsEnd(t *testing.T) {
	f := newField(t)
	big := strings.Repeat("x", publish.MaxBytes-2048)
	f.publish(publish.Message{Topic: request, Value: []byte("gone")},
		publish.Message{Topic: request, Key: "org_1", Value: []byte("no JSON"), Headers: []publish.Header{{Key: "h", Value: []byte("v")}, {Key: "lethe-replayed", Value: []byte("old")}}},
		publish.Message{Topic: request, Value: []byte("another one")},
		publish.Message{Topic: request, Value: []byte(big)})
	f.retire(request, 1)
	elsewhere := f.letter("not_json", request, 1, 7, dawn)
	elsewhere.Headers[4].Value = []byte("another cluster")
	unsealed := f.letter("unclassified", audit, 0, -1, dawn)
	unsealed.Headers = unsealed.Headers[:7]
	f.publish(
		f.letter("not_json", request, 0, 4, dawn),         // retention took the record
		f.letter("not_json", request, 1, 7, dawn),         // it is there
		f.letter("not_json", request, 2, 5, dawn),         // another record is there
		f.letter("too_large", request, 3, len(big), dawn), // it cannot be published
		f.letter("not_json", request, 9, 4, dawn),         // behind the end
		elsewhere,
		f.letter("not_json", "billing", 0, 4, dawn), // not ours to read
		f.letter("unclassified", audit, 7, -1, dawn),
		unsealed,
		publish.Message{Topic: deadTopic, Value: []byte("what is this?")},
	)
	want := replay.Result{
		Counts: []replay.Count{
			{Publisher: "unknown", Unreadable: 1},
			{Reason: "not_json", Publisher: "unknown", Replayed: 1, Gone: 4, Foreign: 1},
			{Reason: "too_large", Publisher: "unknown", TooLarge: 1},
			{Reason: "unclassified", Publisher: "/svc/api", Replayed: 1, Gone: 1},
		},
		Sum: replay.Count{Replayed: 2, Gone: 5, TooLarge: 1, Foreign: 1, Unreadable: 1},
	}
	before := len(f.read(request))
	if got := f.run(func(o *replay.Options) { o.DryRun = true; o.Publisher = nil }); !reflect.DeepEqual(got, want) {
		t.Errorf("dry run: got\n%+v\nwant\n%+v", got, want)
	}
	if _, err := os.Stat(f.state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dry run left a state file: %v", err)
	}
	if got := len(f.read(request)) + len(f.read(audit)); got != before {
		t.Errorf("a dry run published %d messages", got-before)
	}
	if got := f.run(nil); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if got := f.run(nil); got.Sum != (replay.Count{}) {
		t.Errorf("again: got %+v, want nothing", got)
	}

	text := func(m kafka.Message) string {
		all := string(m.Key) + " " + string(m.Value)
		for _, h := range m.Headers {
			all += " " + h.Key + "=" + string(h.Value)
		}
		return all
	}
	list := f.read(request)
	if got, want := text(list[len(list)-1]), "org_1 no JSON h=v lethe-replayed=lethe.dead/0/1"; len(list) != before+1 || got != want {
		t.Errorf("%d messages, the last one %q, want %d and %q", len(list), got, before+1, want)
	}
	list = f.read(audit)
	if got, want := text(list[0]), `org_7 {"letheredacted":true,"source":"/svc/api","data":{"organization.id":"org_7"}} lethe-seal=k1:00 content-type=application/cloudevents+json lethe-replayed=lethe.dead/0/7`; len(list) != 1 || got != want {
		t.Errorf("%d messages, the first one %q, want %q", len(list), got, want)
	}
}

func TestFiltersAndWhatWasDoneUnderThem(t *testing.T) {
	f := newField(t)
	for n := range 24 { // two reasons, two topics, four hours
		f.publish(f.letter([]string{"unclassified", "wrong_type"}[n%2], []string{request, audit}[n/2%2], n, -1, dawn.Add(time.Duration(n/4)*time.Hour)))
	}
	steps := []struct {
		name   string
		change func(*replay.Options)
		want   int64
	}{
		{"one reason and topic", func(o *replay.Options) { o.Reason, o.SourceTopic = "unclassified", request }, 6},
		{"the same", func(o *replay.Options) { o.Reason, o.SourceTopic = "unclassified", request }, 0},
		{"the reason, all topics", func(o *replay.Options) { o.Reason = "unclassified" }, 6},
		{"the reason, one topic", func(o *replay.Options) { o.Reason, o.SourceTopic = "unclassified", audit }, 0},
		{"the last hour", func(o *replay.Options) { o.Since = dawn.Add(5 * time.Hour) }, 2},
		{"a later instant", func(o *replay.Options) { o.Since = dawn.Add(5*time.Hour + 1) }, 0},
		{"everything else", nil, 10},
		{"a reason, after everything", func(o *replay.Options) { o.Reason = "wrong_type" }, 0},
		{"forgotten", func(o *replay.Options) { o.Reason, o.Forget = "wrong_type", true }, 12},
		{"the others, after that", nil, 12},
	}
	for _, s := range steps {
		if got := f.run(s.change).Sum; got != (replay.Count{Replayed: s.want}) {
			t.Errorf("%s: got %+v, want %d replayed", s.name, got, s.want)
		}
	}
	f.publish(f.letter("unclassified", request, 99, -1, dawn))
	if got := f.run(nil).Sum.Replayed; got != 1 {
		t.Errorf("one more: got %d replayed, want 1", got)
	}
	data, err := os.ReadFile(f.state)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.state, []byte(strings.Replace(string(data), f.broker.ClusterID(), "x", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.try(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("the state of another cluster: got %v", err)
	}
}

// breaking fails for good after some calls.
type breaking struct {
	*publish.Publisher
	left int
}

func (b *breaking) Publish(ctx context.Context, msgs ...publish.Message) error {
	if b.left--; b.left < 0 {
		return publish.ErrRefused
	}
	return b.Publisher.Publish(ctx, msgs...)
}

func TestABrokenRunGoesOnWhereItWas(t *testing.T) {
	f := newField(t)
	const n = 2500
	list := make([]publish.Message, n)
	for i := range list {
		list[i] = f.letter("unclassified", request, i, -1, dawn)
	}
	if err := f.publisher.Publish(t.Context(), list...); err != nil {
		t.Fatal(err)
	}
	result, err := f.try(t.Context(), func(o *replay.Options) { o.Publisher = &breaking{f.publisher, 1} })
	done := result.Sum.Replayed
	if !errors.Is(err, publish.ErrRefused) || done == 0 || done >= n {
		t.Fatalf("got %d replayed and %v, want some and the refusal", done, err)
	}
	var last replay.Progress
	if got := f.run(func(o *replay.Options) { o.Progress = func(p replay.Progress) { last = p } }).Sum.Replayed; got != n-done {
		t.Errorf("the second run: got %d replayed, want %d", got, n-done)
	}
	if want := (replay.Progress{Read: n - done, Total: n - done, Replayed: n - done}); last != want {
		t.Errorf("got progress %+v, want %+v", last, want)
	}
	seen := map[string]int{}
	for _, m := range f.read(request) {
		for _, h := range m.Headers {
			if h.Key == "lethe-replayed" {
				seen[string(h.Value)]++
			}
		}
	}
	if len(seen) != n {
		t.Errorf("got %d letters, want %d", len(seen), n)
	}
	for where, times := range seen {
		if times != 1 {
			t.Errorf("%s was replayed %d times", where, times)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.try(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: got %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	good := replay.Options{Brokers: []string{"127.0.0.1:1"}, Transport: &kafka.Transport{}, DryRun: true, DeadTopic: deadTopic, Topics: []string{request}, StatePath: "x"}
	cases := []struct {
		name   string
		change func(*replay.Options)
	}{
		{"no brokers", func(o *replay.Options) { o.Brokers = nil }},
		{"no transport", func(o *replay.Options) { o.Transport = nil }},
		{"no publisher", func(o *replay.Options) { o.DryRun = false }},
		{"no dead topic", func(o *replay.Options) { o.DeadTopic = "" }},
		{"no topics", func(o *replay.Options) { o.Topics = nil }},
		{"no state", func(o *replay.Options) { o.StatePath = "" }},
		{"a source topic that is none", func(o *replay.Options) { o.SourceTopic = deadTopic }},
	}
	if _, err := replay.New(good); err != nil {
		t.Errorf("good options: %v", err)
	}
	for _, c := range cases {
		o := good
		c.change(&o)
		if _, err := replay.New(o); err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
}
