package sentences

import (
	"slices"
	"strings"
)

// vague is the closed list of what promises a time and gives no number. Beside it
// count, as vagueTimes says, "a few days" and "while the account is active".
var vague = phrases(
	// without an end
	"indefinite", "indefinitely", "forever", "for ever", "perpetual", "perpetually", "in perpetuity", "permanent", "permanently",
	// for some time
	"reasonable", "reasonably", "limited", "temporary", "temporarily", "period", "periods", "for the duration of",
	"as long as", "so long as", "as needed", "as necessary", "longer than", "until",
	// within some time
	"prompt", "promptly", "immediate", "immediately", "instant", "instantly", "timely", "shortly", "soon", "sooner", "eventually", "at once",
	"as soon as", "as quickly as", "as early as", "undue delay", "without delay",
	// now and then
	"at any time", "from time to time", "periodic", "periodically",
	"hourly", "daily", "nightly", "weekly", "monthly", "quarterly", "yearly", "annual", "annually",
)

// phrases sorts phrases by their first words, longer ones first.
func phrases(list ...string) map[string][][]string {
	m := map[string][][]string{}
	for _, p := range list {
		words := strings.Fields(p)
		m[words[0]] = append(m[words[0]], words)
	}
	for _, l := range m {
		slices.SortFunc(l, func(a, b []string) int { return len(b) - len(a) })
	}
	return m
}

// some stand for a number before a unit.
var some = phrases("every", "each", "for", "within", "a few", "few", "several", "some", "many", "a couple of", "couple of", "a number of")

// vagueTimes finds the phrases of the list, some of a unit, and while with a state.
func vagueTimes(tok []token) []Time {
	var out []Time
	for i := 0; i < len(tok); i++ {
		n := begins(tok[i:], vague)
		if n == 1 && !about(tok, i) {
			continue
		}
		if m := begins(tok[i:], some); n == 0 && m > 0 && i+m < len(tok) {
			if _, ok := unit(tok, i+m); ok {
				n = m + 1
			}
		}
		if n == 0 {
			n = state(tok[i:])
		}
		if n > 0 {
			out = append(out, Time{Start: tok[i].start, End: tok[i+n-1].end, Kind: Vague})
			i += n - 1
		}
	}
	return out
}

// begins returns how many tokens at the start are a phrase of the list.
func begins(tok []token, list map[string][][]string) int {
	if len(tok) == 0 {
		return 0
	}
	for _, words := range list[tok[0].lower] {
		if len(words) <= len(tok) && same(tok, words) {
			return len(words)
		}
	}
	return 0
}

func same(tok []token, words []string) bool {
	for i, w := range words {
		if tok[i].lower != w {
			return false
		}
	}
	return true
}

// about reports whether a word of the list is about time: "including but not limited
// to" and "permanently deleted" are not.
func about(tok []token, i int) bool {
	switch tok[i].lower {
	case "limited":
		return i == 0 || !tok[i-1].is("not")
	case "permanent", "permanently":
		return !slices.ContainsFunc(tok[i+1:min(i+4, len(tok))], func(t token) bool {
			return slices.ContainsFunc([]string{"delet", "eras", "remov", "destr"}, func(stem string) bool { return strings.HasPrefix(t.lower, stem) })
		})
	}
	return true
}

// state returns how many tokens at the start name a state that lasts, as in "while
// your boat is here".
func state(tok []token) int {
	if len(tok) < 4 || !tok[0].is("while") || !tok[1].is("your", "the", "a", "an", "their", "its", "his", "her") {
		return 0
	}
	for i := 3; i < min(6, len(tok)); i++ {
		if tok[i].is("is", "are", "remain", "remains", "stay", "stays") {
			return min(i+2, len(tok))
		}
	}
	return 0
}
