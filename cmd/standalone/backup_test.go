package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	logAhead = "the group has committed more than the ledger knows"
	logLost  = "offsets are lost"
)

// TestWhatABackupLacksIsReadAgain loses the database while the ingester is at
// work, restores a backup that was taken meanwhile, and expects every event once.
func TestWhatABackupLacksIsReadAgain(t *testing.T) {
	s := newSite(t)
	for _, statement := range recipe(t, "BACKUP") {
		s.do("default", statement)
		s.publish(1000) // between the two, too: rows in the backup that its ledger does not know
	}
	if s.logged(logAhead) {
		t.Fatal("the alarm is there before anything was lost")
	}
	s.lose()
	s.restore()
	if got := s.sql("SELECT sum(stored) FROM ingest_ledger"); got != "2000" {
		t.Errorf("the restored ledger has %s offsets, want 2000", got)
	}
	if got := s.sql("SELECT uniqExact(id) FROM request_events"); got != "3000" {
		t.Errorf("%s events are restored, want 3000", got)
	}
	if found, out := s.findings("position"); len(found[0]) != 1 {
		t.Errorf("before the ingester has started, verify does not say that it must:\n%s", out)
	}

	s.startIngester()
	s.awaitComplete()
	if got := s.metric("lethe_ingest_committed_ahead_total"); got != partitions {
		t.Errorf("got alarms for %v partitions, want %d", got, partitions)
	}
	if !s.logged(logAhead) {
		t.Error("the log does not say why it reads again")
	}
	if got, want := s.metric("lethe_ingest_offsets_total", `outcome="stored"`), float64(s.events-2000); got != want {
		t.Errorf("%v offsets were read again, want the %v that the ledger lacked", got, want)
	}
	s.verify()
	s.start([]string{"-only", "query"}).awaitReady()
	window := fmt.Sprintf("kind=request&from=%s&to=%s&limit=1000", s.from.Format(time.RFC3339), s.from.Add(time.Hour).Format(time.RFC3339))
	if got := len(s.readAll(t, "/v1/events?"+window)); got != s.events {
		t.Errorf("/v1/events returns %d events, want each of the %d once", got, s.events)
	}
}

// TestABackupInTheWrongOrderIsNamedAndReplayed takes the ledger last: it then speaks of
// rows that the backup does not have.
func TestABackupInTheWrongOrderIsNamedAndReplayed(t *testing.T) {
	s := newSite(t)
	statements := recipe(t, "BACKUP")
	s.do("default", statements[1])
	s.do("default", statements[2])
	before := s.ends()
	s.publish(1000)
	after := s.ends()
	s.do("default", statements[0])
	s.lose()
	s.restore()
	s.startIngester()
	s.awaitComplete()
	if s.logged(logAhead) {
		t.Error("the ingester noticed: then verify is not the only one that can")
	}
	found, out := s.findings("missing")
	for p := range found {
		next := before[p]
		for _, r := range found[p] {
			first, last := next, next
			if n, _ := fmt.Sscanf(r, "%d-%d", &first, &last); n == 0 || first != next {
				t.Errorf("partition %d: got %q, want a range from %d on", p, r, next)
			}
			next = last + 1
		}
		if next != after[p] {
			t.Errorf("partition %d: the ranges end before %d, want %d\n%s", p, next, after[p], out)
		}
	}

	for p := range found {
		for _, r := range found[p] {
			if out, ok := s.ingest("replay", fmt.Sprintf("lethe.request/%d", p), r); !ok {
				t.Errorf("replay of lethe.request/%d %s: %s", p, r, out)
			}
		}
	}
	s.verify()
	if got := s.sql("SELECT uniqExact(id) FROM request_events"); got != fmt.Sprint(s.events) {
		t.Errorf("%s events are stored after the replay, want %d", got, s.events)
	}
}

// TestWhatKafkaLacksAfterARestoreIsLost deletes from the topic what would have
// to be read again.
func TestWhatKafkaLacksAfterARestoreIsLost(t *testing.T) {
	s := newSite(t)
	for _, statement := range recipe(t, "BACKUP") {
		s.do("default", statement)
	}
	end := s.ends()[0]
	s.publish(1000)
	s.lose()
	s.deleteRecords(0, end+5)
	s.restore()
	s.startIngester()
	s.awaitComplete()
	if got := s.metric("lethe_ingest_offsets_total", `outcome="lost"`); got != 5 {
		t.Errorf("%v offsets are counted as lost, want 5", got)
	}
	if !s.logged(logLost) {
		t.Error("the log says nothing of the loss")
	}
	want := fmt.Sprintf("%d-%d", end, end+4)
	if found, out := s.findings("lost"); len(found[0]) != 1 || found[0][0] != want {
		t.Errorf("verify does not name %s as lost:\n%s", want, out)
	}
	if got := s.sql("SELECT uniqExact(id) FROM request_events"); got != fmt.Sprint(s.events-5) {
		t.Errorf("%s events are stored, want all but 5 of %d", got, s.events)
	}
}

// deleteRecords is what the topic's retention does.
func (s *site) deleteRecords(partition int32, before int64) {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.kafka))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewDeleteRecordsRequest()
	req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "lethe.request", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: partition, Offset: before}}}}
	req.TimeoutMillis = 5000
	res, err := req.RequestWith(s.t.Context(), client)
	if err != nil || res.Topics[0].Partitions[0].ErrorCode != 0 {
		s.t.Fatalf("delete records: %v %+v", err, res)
	}
}

// TestAnEmptyDatabaseIsAnAlarm loses the database without a backup: the ingester
// says so, and reads everything that Kafka has once the group's offsets are reset.
func TestAnEmptyDatabaseIsAnAlarm(t *testing.T) {
	s := newSite(t)
	s.lose()
	s.startIngester()
	s.awaitComplete()
	if got := s.metric("lethe_ingest_committed_ahead_total"); got != partitions {
		t.Errorf("got alarms for %v partitions, want %d", got, partitions)
	}
	if !s.logged("the group has committed but the ledger does not know the partition") {
		t.Error("the log does not say that the tables are gone")
	}
	if found, out := s.findings("position"); len(found[0]) != 1 {
		t.Errorf("verify does not name what is not there:\n%s", out)
	}

	s.ingester.interrupt()
	s.do("default", "DROP DATABASE lethe SYNC")
	client := &kafka.Client{Addr: kafka.TCP(s.kafka)}
	reset := make([]kafka.OffsetCommit, partitions)
	for p := range reset {
		reset[p].Partition = p
	}
	res, err := client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
		GroupID: "lethe-ingest", GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{"lethe.request": reset},
	})
	if err != nil || res.Topics["lethe.request"][0].Error != nil {
		t.Fatalf("reset the group's offsets: %v %+v", err, res)
	}
	s.startIngester()
	s.awaitComplete()
	if got := s.sql("SELECT uniqExact(id) FROM request_events"); got != fmt.Sprint(s.events) {
		t.Errorf("%s events are stored, want %d", got, s.events)
	}
	s.verify()
}

// TestARestoreBringsNothingBack restores rows whose period has ended since the
// backup: nobody reads them, and they go.
func TestARestoreBringsNothingBack(t *testing.T) {
	s := newSite(t)
	kept := s.events
	// Without a plan a request is kept for 30 days: these are over in a minute.
	const period, left, due = 30 * 24 * time.Hour, time.Minute, 100
	from := time.Now().UTC().Add(left - period).Truncate(time.Second)
	s.publishFrom(from.Add(-time.Duration(kept)*10*time.Millisecond), due)
	for _, statement := range recipe(t, "BACKUP") {
		s.do("default", statement)
	}
	s.lose()
	s.eventually("the period is over", func() bool { return time.Now().After(from.Add(period + due*10*time.Millisecond + time.Second)) })
	// Expiry waits, so that readers could see what is over if nobody hid it.
	s.do("default", recipe(t, "RESTORE")[0]+" SETTINGS structure_only = true")
	s.do("lethe", "SYSTEM STOP TTL MERGES request_events")
	s.restore()
	s.start([]string{"-only", "query"}, "POLICY=itskode").awaitReady()
	if got := len(s.readAll(t, "/v1/events?kind=request&limit=1000&from="+from.Add(-time.Hour).Format(time.RFC3339))); got != kept {
		t.Errorf("%d events are readable, want the %d whose period is not over", got, kept)
	}
	if got := s.sql("SELECT count() FROM request_events WHERE expires_at <= now()"); got != fmt.Sprint(due) {
		t.Errorf("%s rows that are over are there, want %d: nothing was hidden", got, due)
	}
	s.do("lethe", "SYSTEM START TTL MERGES request_events")
	began := time.Now()
	s.eventually("their bytes are gone", func() bool { return s.sql("SELECT count() FROM request_events") == fmt.Sprint(kept) })
	t.Logf("gone after %s", time.Since(began).Round(100*time.Millisecond))
	s.startIngester()
	s.awaitComplete()
	s.verify()
}
