package feed

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// errChanged says that a file is not the one the state file speaks of.
var errChanged = errors.New("it is not the file of the last run: it was replaced or became shorter; start over without resuming")

// state is what a run remembers. It holds positions and hashes of lengths and
// numbers, never a text of a line.
type state struct {
	Version int `json:"version"`
	// ShiftTo is what was asked, ShiftOf names the inputs by their first lines,
	// Shift is what came of it, in nanoseconds.
	ShiftTo   string        `json:"shift_to,omitempty"`
	ShiftOf   string        `json:"shift_of,omitempty"`
	Shift     time.Duration `json:"shift,omitempty"`
	ShiftedAt time.Time     `json:"shifted_at,omitzero"`
	// Times is the ShiftTo of the run that the positions belong to.
	Times  string              `json:"times,omitempty"`
	Inputs map[string]position `json:"inputs"` // by absolute path

	path  string
	saved time.Time
}

// position is a place behind a line whose event was acknowledged.
type position struct {
	Line   int64 `json:"line"`
	Offset int64 `json:"offset"` // bytes after decompression
	// First and Last are the identities of the first line and of this one.
	First identity `json:"first"`
	Last  identity `json:"last"`
}

// identity names a line by all lines up to it.
type identity [16]byte

// MarshalText writes the identity in hexadecimal digits.
func (i identity) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, i[:]), nil }

// UnmarshalText reads what MarshalText writes.
func (i *identity) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(i)) {
		return errors.New("not an identity")
	}
	_, err := hex.Decode(i[:], text)
	return err
}

// stateVersion changes when an older state cannot be continued.
const stateVersion = 1

func loadState(path string, forget bool) (*state, error) {
	s := &state{Version: stateVersion, Inputs: map[string]position{}, path: path}
	if path == "" || forget {
		return s, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(data, s); err != nil || s.Version != stateVersion || s.Inputs == nil {
		return nil, fmt.Errorf("read state: %s is not a state file of this version", path)
	}
	return s, nil
}

// saveSometimes saves at most once a second: a state that is behind repeats
// events, and repeated events are one event.
func (s *state) saveSometimes() error {
	if time.Since(s.saved) < time.Second {
		return nil
	}
	return s.save()
}

// save replaces the file in one step.
func (s *state) save() error {
	if s.path == "" {
		return nil
	}
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
	s.saved = time.Now()
	return nil
}

func inputKey(name string) (string, error) {
	if name == Stdin {
		return name, nil
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("name input: %w", err)
	}
	return path, nil
}
