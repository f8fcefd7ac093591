package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// state remembers what was replayed. It holds offsets and filters only.
type state struct {
	Version int     `json:"version"`
	Cluster string  `json:"cluster"`
	Done    []*done `json:"done"`

	path string
}

// done says that of each partition every letter below an offset that passes the
// filter was replayed, or cannot be.
type done struct {
	Reason string          `json:"reason,omitempty"`
	Topic  string          `json:"topic,omitempty"`
	Since  time.Time       `json:"since,omitzero"`
	Next   map[int32]int64 `json:"next"`
}

// stateVersion changes when an older state cannot be continued.
const stateVersion = 1

func loadState(path, cluster string, forget bool) (*state, error) {
	s := &state{Version: stateVersion, Cluster: cluster, path: path}
	if forget {
		return s, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(data, s); err != nil || s.Version != stateVersion {
		return nil, fmt.Errorf("read state: %s is not a state file of replays of this version", path)
	}
	if s.Cluster != cluster {
		return nil, fmt.Errorf("read state: %s speaks of another cluster; start over without it", path)
	}
	return s, nil
}

// own returns the entry of exactly this filter.
func (s *state) own(o Options) *done {
	for _, d := range s.Done {
		if d.Reason == o.Reason && d.Topic == o.SourceTopic && d.Since.Equal(o.Since) {
			if d.Next == nil {
				d.Next = map[int32]int64{}
			}
			return d
		}
	}
	d := &done{Reason: o.Reason, Topic: o.SourceTopic, Since: o.Since, Next: map[int32]int64{}}
	s.Done = append(s.Done, d)
	return d
}

// from returns the offset below which nothing that passes the filter is left.
func (s *state) from(o Options, partition int32) (at int64) {
	for _, d := range s.Done {
		if (d.Reason == "" || d.Reason == o.Reason) && (d.Topic == "" || d.Topic == o.SourceTopic) && !o.Since.Before(d.Since) {
			at = max(at, d.Next[partition])
		}
	}
	return at
}

// has reports whether an earlier run, under whatever filter, came past the letter.
func (s *state) has(l letter, partition int32, offset int64) bool {
	for _, d := range s.Done {
		if offset < d.Next[partition] && l.matches(d.Reason, d.Topic, d.Since) {
			return true
		}
	}
	return false
}

// recreated forgets a partition that ends before what was replayed of it.
func (s *state) recreated(partition int32, end int64) {
	for _, d := range s.Done {
		if d.Next[partition] > end {
			delete(d.Next, partition)
		}
	}
}

// save replaces the file in one step.
func (s *state) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := renameio.WriteFile(s.path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
