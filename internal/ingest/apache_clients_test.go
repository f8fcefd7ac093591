//go:build kafka

package ingest

import (
	"encoding/base64"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
)

// kcat publishes lines with librdkafka, one record each.
func (s *stack) kcat(partition int, lines []string, args ...string) {
	s.t.Helper()
	args = append([]string{"-P", "-b", s.kafka.Brokers[0], "-t", s.topics[0], "-p", fmt.Sprint(partition)}, args...)
	cmd := exec.CommandContext(s.t.Context(), "kcat", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	if text, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("kcat, which brings librdkafka to the tests: %v: %s", err, text)
	}
}

// java publishes with the Java client what a script says; see tools/kafka/Produce.java.
func (s *stack) java(script *strings.Builder) {
	s.t.Helper()
	classes, err := kafkatest.ClassPath()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), "java", "-XX:TieredStopAtLevel=1", "-cp", classes, "../../tools/kafka/Produce.java", s.kafka.Brokers[0], s.topics[0])
	cmd.Stdin = strings.NewReader(script.String())
	if text, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("publish with the Java client: %v: %s", err, text)
	}
}

// lines are events of one line each.
func lines(from, to int) []string {
	values := requestEvents(from, to)
	for n := range values {
		values[n] = strings.ReplaceAll(values[n], "\n", "")
	}
	return values
}

// sized is an event of exactly so many bytes.
func sized(id, size int) string {
	short := requestEvent(id, `,"padding":""`)
	return strings.Replace(short, `"padding":""`, `"padding":"`+strings.Repeat("x", size-len(short))+`"`, 1)
}

// Every client writes to a partition of its own, and the account of that says
// what became of it.
func TestApacheOtherClients(t *testing.T) {
	type sent struct {
		name         string
		codec        kgo.CompressionCodecType
		stored, dead int
		absent       int // records of aborted transactions, and control records
		publish      func(partition, id int)
	}
	s := newApache(t, 16, map[string]string{"max.message.bytes": "4194304"})
	var script strings.Builder
	send := func(partition int, values ...string) {
		for _, v := range values {
			fmt.Fprintln(&script, "send", partition, base64.StdEncoding.EncodeToString([]byte(v)))
		}
	}
	bulky := kgo.RecordHeader{Key: "trace", Value: make([]byte, 500<<10)}
	franz := s.other(kgo.DefaultProduceTopic(s.topics[0]), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(2<<20),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	cases := []sent{
		{name: "librdkafka in transactions", stored: 100, absent: 1, publish: func(p, id int) {
			s.kcat(p, lines(id, id+100), "-X", "transactional.id="+s.group)
		}},
		{name: "librdkafka, idempotent", stored: 100, publish: func(p, id int) { s.kcat(p, lines(id, id+100), "-X", "enable.idempotence=true") }},
		{name: "librdkafka, tombstones", dead: 2, publish: func(p, _ int) { s.kcat(p, []string{"org_1:", "org_2:"}, "-K", ":", "-Z") }},
		{name: "librdkafka, binary mode with a key", stored: 1, publish: func(p, id int) {
			s.kcat(p, []string{`{"http.request.method":"GET","http.response.status_code":200,"client.address":"203.0.113.7:51234","user.id":"u_1"}`},
				"-k", "org_1", "-H", "ce_specversion=1.0", "-H", fmt.Sprint("ce_id=e-", id), "-H", "ce_source=/svc/rd", "-H", "ce_type=com.example.request.completed.v1",
				"-H", "ce_time="+time.Now().UTC().Format(time.RFC3339), "-H", "content-type=application/json")
		}},
		{name: "librdkafka, a thousand headers", stored: 1, publish: func(p, id int) {
			var args []string
			for n := range 1000 {
				args = append(args, "-H", fmt.Sprintf("header-%d=value", n))
			}
			s.kcat(p, lines(id, id+1), args...)
		}},
		{name: "Java in transactions", codec: kgo.CodecLz4, stored: 40, absent: 23, publish: func(p, id int) {
			fmt.Fprintf(&script, "producer transactional.id=%s-java compression.type=lz4\n", s.group)
			for _, end := range []string{"commit", "abort", "commit"} {
				script.WriteString("begin\n")
				send(p, requestEvents(id, id+20)...)
				script.WriteString(end + "\n")
				id += 20
			}
		}},
		{name: "Java, no value and empty ones", dead: 3, publish: func(p, _ int) {
			fmt.Fprintf(&script, "producer\nsend %d\nsend %d =\nsend %d\n", p, p, p)
		}},
		{name: "Java, the largest value and one byte more", stored: 1, dead: 1, publish: func(p, id int) {
			script.WriteString("producer max.request.size=4194304\n")
			send(p, sized(id, codec.MaxValue), sized(id+1, codec.MaxValue+1))
		}},
		{name: "a header of 500 KiB", stored: 1, dead: 1, publish: func(p, id int) {
			for _, v := range []string{requestEvent(id, ""), "not JSON"} {
				r := &kgo.Record{Partition: int32(p), Value: []byte(v), Headers: []kgo.RecordHeader{bulky}}
				if err := franz.ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}},
	}
	for codec, name := range map[kgo.CompressionCodecType]string{kgo.CodecGzip: "gzip", kgo.CodecSnappy: "snappy", kgo.CodecLz4: "lz4", kgo.CodecZstd: "zstd"} {
		cases = append(cases, sent{name: "librdkafka, " + name, codec: codec, stored: 100, publish: func(p, id int) { s.kcat(p, lines(id, id+100), "-z", name) }})
		if codec != kgo.CodecLz4 { // its transactions have that
			cases = append(cases, sent{name: "Java, " + name, codec: codec, stored: 100, publish: func(p, id int) {
				script.WriteString("producer compression.type=" + name + "\n")
				send(p, requestEvents(id, id+100)...)
			}})
		}
	}
	total, stored, dead := 0, 0, 0
	for p, c := range cases {
		c.publish(p, 1000*p)
		total, stored, dead = total+c.stored+c.dead+c.absent, stored+c.stored, dead+c.dead
	}
	s.java(&script)
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], total))
	r.stop()
	for p, c := range cases {
		got := s.query(`SELECT sum(stored), sum(dead), sum(absent), sum(last - first + 1) FROM ingest_ledger WHERE topic = '%s' AND partition = %d`, s.topics[0], p)
		if want := fmt.Sprintf("%d\t%d\t%d\t%d", c.stored, c.dead, c.absent, c.stored+c.dead+c.absent); got != want {
			t.Errorf("%s: got stored, dead, absent and all offsets %q, want %q", c.name, got, want)
		}
		if got := s.query(`SELECT uniqExact(id) FROM request_events WHERE src_topic = '%s' AND src_partition = %d`, s.topics[0], p); got != fmt.Sprint(c.stored) {
			t.Errorf("%s: got %s events, want %d", c.name, got, c.stored)
		}
		if c.codec != kgo.CodecNone {
			if got := s.codecs(int32(p), c.stored); len(got) != 1 || !got[c.codec] {
				t.Errorf("%s: got batches of codecs %v, want %d", c.name, got, c.codec)
			}
		}
	}
	for reason, want := range map[string]float64{"empty": 5, "too_large": 1, "not_json": 1} {
		if got := r.metric("events_total", "outcome=dead", "reason="+reason); got != want {
			t.Errorf("%s: got %v dead letters, want %v", reason, got, want)
		}
	}
	s.accounts(s.topics[0], total, stored)
	s.digests()
	s.verifies()
}

// codecs says how the batches of a partition are compressed.
func (s *stack) codecs(partition int32, records int) map[kgo.CompressionCodecType]bool {
	s.t.Helper()
	c := s.other(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topics[0]: {partition: kgo.NewOffset().AtStart()}}))
	found := make(map[kgo.CompressionCodecType]bool)
	for records > 0 {
		fetched := c.PollFetches(s.t.Context())
		if err := fetched.Err(); err != nil {
			s.t.Fatal(err)
		}
		fetched.EachRecord(func(r *kgo.Record) {
			found[kgo.CompressionCodecType(r.Attrs.CompressionType())] = true
			records--
		})
	}
	return found
}
