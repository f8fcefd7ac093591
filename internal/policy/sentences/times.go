package sentences

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lethe-audit/lethe/internal/policy"
)

// Kind says how a text speaks of time.
type Kind uint8

// The kinds.
const (
	Exact Kind = iota // "90 days"
	Range             // "between 14 and 90 days"
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

// inUnits matches a number behind its unit, as a table has it: "days: 30".
var inUnits = regexp.MustCompile(`(?i)\b(days|weeks|months|years)(?:\)?[:=]|\)) ?(\d{1,4})\b`)

// aged matches an age without a unit. A percentage or an amount is none.
var aged = regexp.MustCompile(`(?i)\b(?:(?:under|below|younger than|over|above|older than) (?:the age of )?|(?:age of|aged?|ages) (?:under |over )?)(\d+|\pL+)\b(%?)`)

// maxAge is the highest age that an age without a unit can be, as in the policy file.
const maxAge = 21

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
	for _, m := range inUnits.FindAllStringSubmatchIndex(text, -1) {
		n, _ := strconv.ParseFloat(text[m[4]:m[5]], 64)
		p := period(n, strings.ToLower(text[m[2]:m[3]]))
		add(Time{Start: m[0], End: m[1], Low: p, High: p})
	}
	for _, m := range aged.FindAllStringSubmatchIndex(text, -1) {
		number := tokens(text[m[2]:m[3]])
		if n, first := numberBefore(number); first == 0 && !number[0].is("a", "an") && n >= 1 && n <= maxAge && m[4] == m[5] {
			add(Time{Start: m[0], End: m[1], Kind: Age, Age: int(n)})
		}
	}
	for _, t := range vagueTimes(tok) {
		add(t)
	}
	slices.SortFunc(out, func(a, b Time) int { return a.Start - b.Start })
	return out
}
