package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/publish/replay"
)

// again publishes dead letters again.
func again(ctx context.Context, f flags, environ []string, stdout, stderr io.Writer) (code int, err error) {
	c, err := config.LoadPublish(environ)
	if err != nil {
		return exitFailed, err
	}
	if f.state == "" {
		if f.state, err = replayState(c.Kafka); err != nil {
			return exitFailed, err
		}
	}
	transport, _, err := publish.Connect(c.Kafka)
	if err != nil {
		return exitFailed, err
	}
	p, err := publish.New(publish.Options{Brokers: c.Kafka.Brokers, Transport: transport, Batch: batch})
	if err != nil {
		return exitFailed, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()

	told := time.Now()
	r, err := replay.New(replay.Options{
		Brokers: c.Kafka.Brokers, Transport: transport, Publisher: p,
		DeadTopic: c.Kafka.TopicDead, Topics: []string{c.Kafka.TopicRequest, c.Kafka.TopicAudit, c.Kafka.TopicSecurity},
		Reason: f.reason, SourceTopic: f.sourceTopic, Since: f.since,
		StatePath: f.state, Forget: f.restart, DryRun: f.dryRun, Patience: f.patience,
		Progress: func(at replay.Progress) {
			if !f.quiet && time.Since(told) >= every {
				told = time.Now()
				_, _ = fmt.Fprintf(stderr, "%d of %d dead letters read (%d %%), %d replayed\n", at.Read, at.Total, at.Read*100/max(1, at.Total), at.Replayed)
			}
		},
	})
	if err != nil {
		return exitUsage, err
	}
	checking, cancel := context.WithTimeout(ctx, checkTime)
	err = p.Check(checking, c.Kafka.TopicDead)
	cancel()
	if ctx.Err() != nil {
		return exitInterrupted, errors.New("interrupted")
	}
	if err != nil {
		return exitFailed, err
	}
	result, err := r.Run(ctx)
	table(stdout, result, f.dryRun)
	switch {
	case err != nil && ctx.Err() != nil:
		return exitInterrupted, errors.New("interrupted; the same command goes on there")
	case err != nil:
		return exitFailed, err
	case result.Sum.Left() > 0:
		return exitRefused, nil
	}
	return exitDone, nil
}

// replayState names the state file of all replays from one dead topic.
func replayState(c config.Kafka) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w; name the state file with -state", err)
	}
	sum := sha256.Sum256([]byte(strings.Join(append([]string{c.TopicDead}, c.Brokers...), "\x00")))
	return filepath.Join(cache, "lethe", "replay", hex.EncodeToString(sum[:8])+".json"), nil
}

// table shows the counts by reason and publisher.
func table(out io.Writer, r replay.Result, dry bool) {
	if len(r.Counts) > 0 {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "reason\tpublisher\treplayed\tsource gone\ttoo large\tforeign topic\tno letter")
		for _, c := range r.Counts {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\n", shown(c.Reason), shown(c.Publisher), c.Replayed, c.Gone, c.TooLarge, c.Foreign, c.Unreadable)
		}
		_ = w.Flush()
	}
	done := "replayed"
	if dry {
		done = "would be replayed"
	}
	_, _ = fmt.Fprintf(out, "%d dead letters %s, %d cannot be\n", r.Sum.Replayed, done, r.Sum.Left())
}

// shown is a text that publishers chose, harmless to a terminal and a table.
func shown(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	if s == "" {
		return "-"
	}
	q := strconv.QuoteToGraphic(s)
	return q[1 : len(q)-1]
}
