package export

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
)

// Format names the layout of the archive.
const Format = "lethe.export.v1"

// Manifest is the last file of an archive. An archive without it is incomplete.
type Manifest struct {
	Format    string `json:"format"`
	CreatedAt string `json:"created_at"`
	// Policy and Version name the policy file that was in force.
	Policy  string `json:"policy"`
	Version string `json:"version"`
	// Rows is the number of events; Masked, of those in which a value of somebody else is hidden.
	Rows   uint64          `json:"rows"`
	Masked uint64          `json:"masked_rows"`
	Kinds  map[string]Span `json:"kinds"`
	Files  []File          `json:"files"`

	Identifiers Identifiers     `json:"identifiers"`
	NotSearched []Store         `json:"not_searched"`
	Horizon     json.RawMessage `json:"horizon"`
	Withheld    json.RawMessage `json:"withheld"`
}

// Span is how many events of a kind there are, and from when to when.
type Span struct {
	Rows  uint64 `json:"rows"`
	First string `json:"first"`
	Last  string `json:"last"`
}

// File is one file of the archive; size and digest are of its plain content.
type File struct {
	Name   string `json:"name"`
	Rows   uint64 `json:"rows"`
	Bytes  uint64 `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Identifiers are the subject keys that were searched, and those that stand
// beside them in the person's own events and were not searched.
type Identifiers struct {
	Searched        []string `json:"searched"`
	SeenNotSearched []string `json:"seen_not_searched"`
	// MoreSeen says that there were more than the list holds.
	MoreSeen bool `json:"more_seen"`
}

// Store is a place that was not searched and may hold data of the person.
type Store struct {
	Name string `json:"store"`
	// Why says why it is not searched.
	Why string `json:"why"`
	// GreatestAge is the age at which data there is gone, such as "30d", or "unknown".
	GreatestAge string `json:"greatest_age"`
}

// count adds a row to the totals.
func (m *Manifest) count(r *event.Row, masked bool) {
	m.Rows++
	if masked {
		m.Masked++
	}
	at := r.OccurredAt.UTC().Format(milliseconds) // orders as text
	s := m.Kinds[r.Kind.String()]
	if s.Rows == 0 || at < s.First {
		s.First = at
	}
	if at > s.Last {
		s.Last = at
	}
	s.Rows++
	m.Kinds[r.Kind.String()] = s
}

// maxSeen bounds the identifiers that a manifest offers.
const maxSeen = 1000

// seen collects the actor's identifiers that were not searched.
type seen struct {
	searched []string
	keys     map[string]struct{}
	more     bool
}

func newSeen(searched []string) *seen {
	return &seen{searched: searched, keys: map[string]struct{}{}}
}

// add takes the identifiers of a row whose actor is the person. Those of rows in
// which somebody else acted are not the person's and never named.
func (s *seen) add(r *event.Row) {
	for _, f := range [...]struct {
		prefix string
		text   event.Text
	}{{"user:", event.TUserID}, {"device:", event.TDeviceID}, {"email:", event.TUserEmail}, {"session:", event.TSessionID}} {
		id := r.Text[f.text]
		if id == "" {
			continue
		}
		key := f.prefix + id
		if strings.HasPrefix(id, "email:") {
			key = id
		}
		if slices.Contains(s.searched, key) {
			continue
		}
		if _, known := s.keys[key]; known {
			continue
		}
		if len(s.keys) == maxSeen {
			s.more = true
			return
		}
		s.keys[key] = struct{}{}
	}
}

func (s *seen) list() (keys []string, more bool) {
	keys = make([]string, 0, len(s.keys))
	for k := range s.keys {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys, s.more
}
