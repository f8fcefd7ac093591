package ingest

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// tell sets the gauges of lag until ctx is done.
func (r *route) tell(ctx context.Context) {
	every := min(time.Second, r.o.ProgressEvery)
	for sleep(ctx, every) {
		r.askForEnds(ctx, time.Now().Add(-every))
		now := time.Now().UTC()
		for _, p := range r.parts {
			events, behind := p.lag(now)
			r.metrics.lag(p.place, events, behind, p.progress(now).CompleteUntil)
		}
	}
}

// askForEnds asks for the ends of partitions that no broker has told since an
// instant: while ClickHouse takes nothing, nothing is fetched, and what waits in
// Kafka meanwhile is lag all the same. The next try is at most a second away.
func (r *route) askForEnds(ctx context.Context, since time.Time) {
	ask := make(map[string][]kafka.OffsetRequest)
	for _, p := range r.parts {
		p.mu.Lock()
		if p.told.Before(since) {
			ask[p.topic] = append(ask[p.topic], kafka.LastOffsetOf(int(p.partition)))
		}
		p.mu.Unlock()
	}
	if len(ask) == 0 {
		return
	}
	res, err := r.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: ask})
	if err != nil {
		return
	}
	now := time.Now()
	for topic, ends := range res.Topics {
		for _, e := range ends {
			if p := r.places[place{topic, int32(e.Partition)}]; p != nil && e.Error == nil {
				p.mu.Lock()
				p.end, p.told = max(p.end, e.LastOffset), now
				p.mu.Unlock()
			}
		}
	}
}

// writeProgress writes progress rows until ctx is done. Each is worth one try:
// the next one is seconds away. It is no part of tell: a ClickHouse that does not
// answer must not keep the gauges from telling so.
func (r *route) writeProgress(ctx context.Context) {
	for len(r.parts) > 0 && sleep(ctx, r.o.ProgressEvery) {
		now := time.Now().UTC()
		rows := make([]ledger.Progress, len(r.parts))
		for n, p := range r.parts {
			rows[n] = p.progress(now)
		}
		if err := r.o.Storage.WriteProgress(ctx, rows); err != nil && ctx.Err() == nil {
			r.log.Warn("write progress", "error", err)
		}
	}
}
