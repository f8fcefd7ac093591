package sentences

import (
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/lethe-audit/lethe/internal/policy"
)

// unitOf gives the length of a unit: in months, or in seconds.
var unitOf = map[string]struct{ months, seconds float64 }{
	"second": {0, 1}, "sec": {0, 1}, "minute": {0, 60}, "min": {0, 60}, "hour": {0, 3600}, "hr": {0, 3600}, "h": {0, 3600},
	"day": {0, day}, "d": {0, day}, "week": {0, 7 * day}, "wk": {0, 7 * day}, "w": {0, 7 * day}, "fortnight": {0, 14 * day},
	"month": {1, 0}, "mo": {1, 0}, "quarter": {3, 0}, "year": {12, 0}, "yr": {12, 0}, "y": {12, 0}, "decade": {120, 0},
}

const day = 86400

// unit reads a unit. A letter is one only right behind digits, as in 30d.
func unit(tok []token, i int) (string, bool) {
	w := tok[i].lower
	if len(w) == 1 {
		glued := i > 0 && tok[i-1].end == tok[i].start && tok[i-1].isDigits()
		_, ok := unitOf[w]
		return w, ok && glued && w == tok[i].text
	}
	w = strings.TrimSuffix(w, "s")
	_, ok := unitOf[w]
	return w, ok && len(w) > 1
}

// period returns how long n units are, or zero where a policy file cannot say it.
func period(n float64, unit string) policy.Period {
	u := unitOf[strings.TrimSuffix(unit, "s")]
	months, days := n*u.months, n*u.seconds/day
	if months != math.Trunc(months) || days != math.Trunc(days) || months > policy.MaxMonths || days > policy.MaxDays {
		return policy.Period{}
	}
	return policy.Period{Months: int(months), Days: int(days)}
}

// token is a number in digits, a word, or one other character.
type token struct {
	text, lower string
	start, end  int
}

func tokens(text string) []token {
	var out []token
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		start := i
		i += size
		switch {
		case unicode.IsSpace(r):
			continue
		case digit(r):
			for i < len(text) && (digit(rune(text[i])) || strings.IndexByte(".,", text[i]) >= 0 && i+1 < len(text) && digit(rune(text[i+1]))) {
				i++
			}
		case unicode.IsLetter(r):
			rest := strings.IndexFunc(text[i:], func(r rune) bool { return !unicode.IsLetter(r) })
			if rest < 0 {
				rest = len(text) - i
			}
			i += rest
		}
		out = append(out, token{text[start:i], strings.ToLower(text[start:i]), start, i})
	}
	return out
}

func digit(r rune) bool { return '0' <= r && r <= '9' }

func (t token) isDigits() bool { return digit(rune(t.text[0])) }

func (t token) is(words ...string) bool { return slices.Contains(words, t.lower) }

func (t token) isDash() bool { return t.is("-", "‐", "‑", "–", "—") }

// counted finds the numbers with a unit: 30 days, 30-day, ninety (90) days, 14 to 90
// days, 30, 60 or 90 days, a year, half a year, one and a half years, the 30th day.
func counted(tok []token) []Time {
	var out []Time
	last := 0 // the first token behind the last time
	for i := range tok {
		u, ok := unit(tok, i)
		if !ok || i == 0 {
			continue
		}
		before, working := unfill(tok[:i])
		list := numbersBefore(tok[last:before])
		if len(list) == 0 {
			continue
		}
		for j := range list {
			list[j].first += last
			list[j].end += last
		}
		if list[len(list)-1].article && (u == "second" || u == "quarter" && i+1 < len(tok) && tok[i+1].is("of")) {
			continue // "a second device", "a quarter of them"
		}
		old, isAge := ageBehind(tok, i)
		var times []Time
		for j, n := range list {
			t := Time{Start: tok[n.first].start, End: tok[n.end-1].end}
			if j == len(list)-1 {
				t.End = tok[old].end
			}
			switch p := period(n.value, u); {
			case isAge && n.value < 200:
				t.Kind, t.Age = Age, int(n.value)
			case !working:
				t.Low, t.High = p, p
			}
			times = append(times, t)
		}
		first := list[0].first
		if len(list) == 2 && !isAge && spans(tok, list[0].end, list[1].first, first) {
			times = []Time{ranged(times[0], times[1])}
		} else if len(list) == 1 && len(out) > 0 && !isAge && out[len(out)-1].Kind == Exact && first > last && // "14 days to 90 days"
			first-last <= 1 && spans(tok, last, first, firstToken(tok, out[len(out)-1].Start)) {
			times = []Time{ranged(out[len(out)-1], times[0])}
			out = out[:len(out)-1]
		}
		out = append(out, times...)
		last = old + 1
	}
	return out
}

func firstToken(tok []token, start int) int {
	return slices.IndexFunc(tok, func(t token) bool { return t.start == start })
}

func ranged(low, high Time) Time {
	return Time{Start: low.Start, End: high.End, Kind: Range, Low: low.Low, High: high.High}
}

// spans reports whether the tokens from a to b make a range of the numbers around
// them, of which the first begins at first.
func spans(tok []token, a, b, first int) bool {
	if b-a != 1 {
		return false
	}
	return tok[a].is("to", "through") || tok[a].isDash() || tok[a].is("and") && first > 0 && tok[first-1].is("between")
}

// unfill steps back over what stands between a number and its unit, and reports
// whether the units are working ones, as long as a calendar of holidays says.
func unfill(tok []token) (n int, working bool) {
	n = len(tok)
	for n > 1 {
		switch t := tok[n-1]; {
		case t.is("business", "working", "banking", "trading", "school"):
			working = true
		case t.isDash(), t.is("calendar", "full", "whole", "consecutive", "additional", "further", "extra", "more", "fewer", "less", "or"):
		default:
			return n, working
		}
		n--
	}
	return n, working
}

// ageBehind reports whether the unit at i is one of age, and the last token of it.
func ageBehind(tok []token, i int) (last int, ok bool) {
	j := i + 1
	if j < len(tok) && tok[j].isDash() {
		j++
	}
	switch {
	case j < len(tok) && tok[j].is("old", "olds"):
		return j, true
	case j+1 < len(tok) && (tok[j].is("of") && tok[j+1].is("age") || tok[j].is("or") && tok[j+1].is("older", "younger")):
		return j + 1, true
	}
	return i, false
}
