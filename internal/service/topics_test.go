package service

import (
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/budget"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/policy"
)

var names = config.Kafka{TopicRequest: "r", TopicAudit: "a", TopicSecurity: "s", TopicDead: "d"}

// topic forgets after its retention and six minutes.
func topic(name string, retention time.Duration) budget.Topic {
	return budget.Topic{Name: name, Retention: retention, CheckInterval: 5 * time.Minute, DeleteDelay: time.Minute, Cleanup: "delete", Timestamps: "LogAppendTime"}
}

func TestTopicAges(t *testing.T) {
	const day = 24 * time.Hour
	created := topic("s", day)
	created.Timestamps = "CreateTime"
	for _, c := range []struct {
		name          string
		topics        []budget.Topic
		sources, dead time.Duration
	}{
		{"the oldest source, whole days", []budget.Topic{topic("r", time.Hour), topic("a", 2*day), topic("s", day), topic("d", 12*time.Hour)}, 3 * day, day},
		{"exactly a day", []budget.Topic{topic("r", day-6*time.Minute), topic("a", time.Hour), topic("s", time.Hour)}, day, 0},
		{"nothing is known", nil, 0, 0},
		{"a topic that does not exist", []budget.Topic{topic("r", day), topic("a", day), topic("d", day)}, 0, 2 * day},
		{"a source by the producer's time", []budget.Topic{topic("r", day), topic("a", day), created}, 0, 0},
		{"dead letters without end", []budget.Topic{topic("r", day), topic("a", day), topic("s", day), topic("d", budget.Never)}, 2 * day, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if sources, dead := topicAges(names, c.topics); sources != c.sources || dead != c.dead {
				t.Errorf("got %s and %s, want %s and %s", sources, dead, c.sources, c.dead)
			}
		})
	}
}

func TestDeadLettersKeepToTheShortestPromiseOfAnyKind(t *testing.T) {
	p, err := policy.Load("../../schemas/policies/daestro.yaml")
	if err != nil {
		t.Fatal(err)
	}
	list := bounds(p, names)
	if len(list) != 4 || list[3].Topic != "d" {
		t.Fatalf("got %+v, want a bound for each of four topics", list)
	}
	for _, b := range list {
		if b.Under < list[3].Under || b.Under > 7*24*time.Hour || b.Promise == "" {
			t.Errorf("got %+v, want it within seven days and not under that of dead letters", b)
		}
	}
}
