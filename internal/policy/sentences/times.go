package sentences

import (
	"slices"

	"github.com/lethe-audit/lethe/internal/policy"
)

// Kind says how a text speaks of time.
type Kind uint8

// The kinds.
const (
	Exact Kind = iota // "90 days"
	Range             // "10 to 40 days"
	Vague             // "a reasonable time"
	Age               // "under 16"
)

// Time is one place where a text speaks of time.
type Time struct {
	Start, End int // in bytes of the text
	Kind       Kind
	// Low and High are what an exact time and a range say; the same for an exact
	// one. Both are zero where no policy file could say it, such as for five minutes
	// or ten working days.
	Low, High policy.Period
	Age       int // in years, for an age
}

// Times finds where a text speaks of time, in its order; no two overlap.
func Times(text string) []Time {
	var out []Time
	taken := make([]bool, len(text))
	add := func(t Time) {
		if slices.Contains(taken[t.Start:t.End], true) {
			return
		}
		for i := t.Start; i < t.End; i++ {
			taken[i] = true
		}
		out = append(out, t)
	}
	tok := tokens(text)
	for _, t := range counted(tok) {
		add(t)
	}
	for i := range tok {
		if t, ok := unitFirst(tok, i); ok {
			add(t)
		}
		if t, ok := ageAt(tok, i); ok {
			add(t)
		}
	}
	for _, t := range vagueTimes(tok) {
		add(t)
	}
	slices.SortFunc(out, func(a, b Time) int { return a.Start - b.Start })
	return out
}

// unitFirst reads a number behind its unit, as a table has it: "days: 30".
func unitFirst(tok []token, i int) (Time, bool) {
	j := i + 1
	for j < len(tok) && j < i+3 && tok[j].is(")", ":", "=") {
		j++
	}
	u, ok := unit(tok, i)
	if !ok || j == i+1 || j == len(tok) || !tok[j].isDigits() {
		return Time{}, false
	}
	n, first := numberBefore(tok[j : j+1])
	p := period(n, u)
	return Time{Start: tok[i].start, End: tok[j].end, Low: p, High: p}, first == 0
}

// beforeAge stand before an age without a unit.
var beforeAge = phrases(
	"under", "below", "younger than", "over", "above", "older than",
	"under the age of", "below the age of", "over the age of", "above the age of",
	"age of", "age", "ages", "aged", "aged under", "aged over",
)

// maxAge is the highest age that an age without a unit can be, as in the policy file.
const maxAge = 21

// ageAt reads an age without a unit. A percentage is none.
func ageAt(tok []token, i int) (Time, bool) {
	j := i + begins(tok[i:], beforeAge)
	if j == i || j == len(tok) || tok[j].is("a", "an") || j+1 < len(tok) && tok[j+1].is("%") {
		return Time{}, false
	}
	n, first := numberBefore(tok[j : j+1])
	return Time{Start: tok[i].start, End: tok[j].end, Kind: Age, Age: int(n)}, first == 0 && n >= 1 && n <= maxAge
}
