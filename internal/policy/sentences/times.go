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

// vague is the closed list of what promises a time and gives no number. "While"
// counts where it names a state, as in "while the account is active".
var vague = regexp.MustCompile(`(?i)\b(?:` + strings.Join([]string{
	`indefinite(?:ly)?`, `forever`, `for ever`, `perpetual(?:ly)?`, `in perpetuity`, `permanent(?:ly)?`,
	`reasonabl[ey]`, `limited`, `temporar(?:y|ily)`, `periods?`, `for the duration of`,
	`prompt(?:ly)?`, `immediate(?:ly)?`, `instant(?:ly)?`, `timely`, `shortly`, `soon(?:er)?`, `eventually`, `at once`,
	`undue delay`, `without delay`, `(?:as|so) long as`, `as (?:soon|quickly|early) as`, `as needed`, `as necessary`, `longer than`, `until`,
	`while (?:your|the|an?|their|its|his|her) (?:\pL+ ){1,3}(?:is|are|remains?|stays?)(?: \pL+)?`,
	`at any time`, `from time to time`, `periodic(?:ally)?`,
	`hourly`, `daily`, `nightly`, `weekly`, `monthly`, `quarterly`, `yearly`, `annual(?:ly)?`,
	`(?:a few|few|several|some|many|a couple of|a number of) (?:` + strings.Join(unitNames(), `|`) + `)`,
}, "|") + `)\b`)

// maxAge is the highest age that an age without a unit can be, as in the policy file.
const maxAge = 21

// Times finds where a text speaks of time, in its order; no two overlap.
func Times(text string) []Time {
	var out []Time
	add := func(t Time) {
		if !slices.ContainsFunc(out, func(o Time) bool { return t.Start < o.End && o.Start < t.End }) {
			out = append(out, t)
		}
	}
	for _, t := range counted(text) {
		add(t)
	}
	for _, m := range inUnits.FindAllStringSubmatchIndex(text, -1) {
		n, _ := strconv.ParseFloat(text[m[4]:m[5]], 64)
		p := period(n, strings.ToLower(text[m[2]:m[3]]))
		add(Time{Start: m[0], End: m[1], Low: p, High: p})
	}
	for _, m := range aged.FindAllStringSubmatchIndex(text, -1) {
		n, first := numberBefore(tokens(text[m[2]:m[3]]))
		if first == 0 && n >= 1 && n <= maxAge && m[4] == m[5] {
			add(Time{Start: m[0], End: m[1], Kind: Age, Age: int(n)})
		}
	}
	for _, m := range vague.FindAllStringIndex(text, -1) {
		if about(text, m[0], m[1]) {
			add(Time{Start: m[0], End: m[1], Kind: Vague})
		}
	}
	slices.SortFunc(out, func(a, b Time) int { return a.Start - b.Start })
	return out
}

// about reports whether words of the list are about time here: "including but not
// limited to" and "permanently deleted" are not.
func about(text string, start, end int) bool {
	switch strings.ToLower(text[start:end]) {
	case "limited":
		return !strings.HasSuffix(strings.ToLower(text[:start]), "not ")
	case "permanent", "permanently":
		return !removed.MatchString(text[end:])
	}
	return true
}

var removed = regexp.MustCompile(`(?i)^ (?:and \pL+ )?(?:delet|eras|remov|destr)`)
