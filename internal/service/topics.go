package service

import (
	"time"

	"github.com/lethe-audit/lethe/internal/budget"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// bounds says what each topic must keep to: a source topic the shortest promise
// about its kind of events, the dead letters that about any.
func bounds(p *policy.Policy, c config.Kafka) []budget.Bound {
	var list []budget.Bound
	add := func(topic string, kinds ...event.Kind) {
		if under, promise := p.ShortestPromise(kinds...); under > 0 {
			list = append(list, budget.Bound{Topic: topic, Under: under, Promise: promise})
		}
	}
	add(c.TopicRequest, event.Request)
	add(c.TopicAudit, event.Audit)
	add(c.TopicSecurity, event.Security)
	add(c.TopicDead, event.Kinds[:]...)
	return list
}

// eventTopics are the topics of these settings that ingesters read.
func eventTopics(c config.Kafka) []string {
	return []string{c.TopicRequest, c.TopicAudit, c.TopicSecurity}
}

// topicNames are all topics of these settings.
func topicNames(c config.Kafka) []string { return append(eventTopics(c), c.TopicDead) }

// settingsTimeout is how long the query service waits at its start for what
// brokers tell of their topics.
const settingsTimeout = 5 * time.Second

// topicAges returns the greatest age of what the source topics and the dead
// letters hold, in whole days. 0 is unknown: the brokers did not tell it, or
// their settings do not enforce it.
func topicAges(k config.Kafka, topics []budget.Topic) (sources, dead time.Duration) {
	const day = 24 * time.Hour
	days := map[string]time.Duration{}
	for _, t := range topics {
		if age, ok := t.WorstAge(); ok {
			days[t.Name] = (age + day - 1) / day * day
		}
	}
	r, a, s := days[k.TopicRequest], days[k.TopicAudit], days[k.TopicSecurity]
	if r > 0 && a > 0 && s > 0 {
		sources = max(r, a, s)
	}
	return sources, days[k.TopicDead]
}
