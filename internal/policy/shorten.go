package policy

import (
	"slices"
	"strings"
	"time"
)

// Registered completes a class that was read back from the database: its key, its
// periods, its anchor and how it is treated MUST be set.
func Registered(s StoredClass) StoredClass {
	s.Class, s.Tier, _ = SplitKey(s.Key)
	s.Bucket, s.From, s.Keep = s.Promised.Unit(), fromEvent, s.Period.String()
	if s.Period.Sentinel && s.Anchor != "" {
		s.From, s.Keep = s.Anchor, s.After.String()
		if s.Within {
			s.Keep = "within " + s.Keep
		}
	} else if s.Anchor != "" {
		s.Keep += ", or within " + s.After.String() + " of " + s.Anchor
	}
	if s.ShortenedBy == "" {
		s.ShortenedAt = time.Time{}
	}
	if s.AtLeast != (Period{}) {
		s.Keep += ", but not before " + s.AtLeast.String() + " from the event"
	}
	return s
}

// Known returns every class that rows can lie under: those of the file first, then
// those of registered that an earlier file had. What holds of a class is what is
// registered of it.
func (p *Policy) Known(registered []StoredClass) []StoredClass {
	all := p.Stored()
	for _, r := range registered {
		i := slices.IndexFunc(all, func(s StoredClass) bool { return s.Key == r.Key })
		if i < 0 {
			all = append(all, r)
			continue
		}
		if s := &all[i]; r.ShortenedBy != "" {
			s.Period, s.After, s.Within, s.AtLeast = r.Period, r.After, r.Within, r.AtLeast
			s.ShortenedBy, s.ShortenedAt, s.Keep = r.ShortenedBy, r.ShortenedAt, r.Keep
		}
	}
	return all
}

func (p *Policy) has(key string) bool {
	return slices.ContainsFunc(p.stored, func(s StoredClass) bool { return s.Key == key })
}

// Shortening is an older promise and what the file makes of it.
type Shortening struct{ Old, New StoredClass }

// String says which key is shortened to what.
func (s Shortening) String() string { return s.Old.Key + " to " + s.New.Promise() }

// Shortenings returns which registered classes that the file no longer has it
// shortens: those of a class and tier that it promises less for now. A longer promise
// changes nothing, nor does one that cannot be compared, part by part: another anchor,
// an anchor in place of the event, a tier in place of none.
func (p *Policy) Shortenings(registered []StoredClass) []Shortening {
	var all []Shortening
	for _, r := range registered {
		if p.has(r.Key) {
			continue
		}
		if n, ok := successor(r, p.stored); ok && r.shortened(n).Promise() != r.Promise() {
			all = append(all, Shortening{r, r.shortened(n)})
		}
	}
	return all
}

// successor returns the class that takes the place of an older one: of the same class
// and tier, and where there are two the one with the same anchor, or with none.
func successor(old StoredClass, classes []StoredClass) (StoredClass, bool) {
	var found []StoredClass
	for _, n := range classes {
		if n.Class == old.Class && n.Tier == old.Tier {
			found = append(found, n)
		}
	}
	for _, n := range found {
		if old.sameAnchor(n) {
			return n, true
		}
	}
	if len(found) == 0 {
		return StoredClass{}, false
	}
	return found[0], true
}

func (s StoredClass) sameAnchor(n StoredClass) bool {
	return s.Anchor == n.Anchor && s.KeyedBy == n.KeyedBy && s.Period.Sentinel == n.Period.Sentinel
}

// shortened returns s with the parts of n that can never end later.
func (s StoredClass) shortened(n StoredClass) StoredClass {
	if !s.Period.Sentinel && !n.Period.Sentinel && n.Period.NotOver(s.Period) {
		s.Period = n.Period
	}
	if s.Anchor == "" || !s.sameAnchor(n) {
		return s
	}
	// To keep so long after the anchor may become to be gone within it: the row is
	// hidden earlier and goes no later. The other way round shows it again.
	if n.After.NotOver(s.After) && (n.Within || !s.Within) {
		s.After, s.Within = n.After, n.Within
	}
	if s.AtLeast != (Period{}) && n.AtLeast != (Period{}) && n.AtLeast.NotOver(s.AtLeast) {
		s.AtLeast = n.AtLeast
	}
	return s
}

// Promise says what the class promises, such as "2y", "90d after account.deleted" or
// "14d, or within 7d of account.deletion_requested".
func (s StoredClass) Promise() string {
	var parts []string
	if !s.Period.Sentinel {
		parts = append(parts, s.Period.String())
	}
	switch {
	case s.Anchor == "" && s.Period.Sentinel:
		parts = append(parts, s.Period.String())
	case s.Anchor == "":
	case s.Within:
		parts = append(parts, "within "+s.After.String()+" of "+s.Anchor)
	default:
		parts = append(parts, s.After.String()+" after "+s.Anchor)
	}
	text := strings.Join(parts, ", or ")
	if s.AtLeast != (Period{}) {
		text += ", but not before " + s.AtLeast.String() + " from the event"
	}
	return text
}

// Comparison says how a promise stands to an older one.
type Comparison int

// The comparisons.
const (
	Same Comparison = iota
	Shorter
	Longer
	Different // neither, or shorter in one part and longer in another
)

// String returns the word for it.
func (c Comparison) String() string { return [...]string{"same", "shorter", "longer", "different"}[c] }

// Compare says how the promise of s stands to an older one.
func (s StoredClass) Compare(old StoredClass) Comparison {
	less, more := old.shortened(s).Promise() != old.Promise(), s.shortened(old).Promise() != s.Promise()
	switch {
	case s.Promise() == old.Promise() && s.KeyedBy == old.KeyedBy:
		return Same
	case less && !more && s.Promise() == old.shortened(s).Promise():
		return Shorter
	case more && !less && old.Promise() == s.shortened(old).Promise():
		return Longer
	}
	return Different
}
