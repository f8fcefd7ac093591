package sentences

import (
	"slices"
	"strconv"
	"strings"
)

// counting is a number of a text.
type counting struct {
	value      float64
	first, end int // its tokens; end is behind the last
	article    bool
}

// numbersBefore reads the numbers that end with the tokens: one, two of a range, or
// a list. A comma joins two only where "or" or "and" joins the last.
func numbersBefore(tok []token) []counting {
	var list []counting
	end, joined := len(tok), false
	for end > 0 {
		n, first := numberBefore(tok[:end])
		if first < 0 {
			break
		}
		c := counting{value: n, first: first, end: end, article: end-first == 1 && tok[first].is("a", "an")}
		list = append([]counting{c}, list...)
		if tok[end-1].is(")") { // ninety (90): one number, or two that contradict each other
			if outer, at := numberBefore(tok[:first]); at >= 0 && outer == n {
				list[0].first = at
			} else if at >= 0 {
				list = append([]counting{{value: outer, first: at, end: first}}, list...)
			}
		}
		end = list[0].first
		if end == 0 || c.article {
			break
		}
		switch t := tok[end-1]; {
		case t.is("or", "and"):
			joined = true
			if end--; end > 0 && tok[end-1].is(",") {
				end--
			}
		case t.is(",") && joined, t.is("to", "through", "/"), t.isDash():
			end--
		default:
			return list
		}
	}
	return list
}

// numberBefore reads the number that ends with the tokens, and where it begins: -1
// where there is none.
func numberBefore(tok []token) (n float64, first int) {
	end := len(tok)
	if end == 0 {
		return 0, -1
	}
	switch t := tok[end-1]; {
	case t.is(")"): // (90), (ninety)
		open := end - 1
		for open >= 0 && !tok[open].is("(") {
			open--
		}
		if n, first := numberBefore(tok[open+1 : end-1]); open >= 0 && first == 0 {
			return n, open
		}
		return 0, -1
	case t.is("half"):
		if end > 2 && tok[end-2].is("a", "an") && tok[end-3].is("and") {
			if n, first := numberBefore(tok[:end-3]); first >= 0 {
				return n + 0.5, first
			}
		}
		return 0.5, end - 1
	case t.is("a", "an"):
		if end > 1 && tok[end-2].is("half") {
			return 0.5, end - 2
		}
		return 1, end - 1
	case t.is("th", "st", "nd", "rd") && end > 1 && tok[end-2].isDigits() && tok[end-2].end == t.start:
		end--
	}
	if t := tok[end-1]; t.isDigits() {
		n, err := strconv.ParseFloat(strings.ReplaceAll(t.text, ",", ""), 64)
		if err != nil {
			return 0, -1
		}
		return n, end - 1
	}
	first = -1
	for i := end - 1; i >= 0 && end-i <= 8; i-- {
		if v, ok := spelled(tok[i:end]); ok {
			n, first = v, i
		}
	}
	return n, first
}

var (
	small = []string{"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
		"fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"}
	tens = []string{"", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"}
)

// spelled reads a number in words, below a thousand.
func spelled(tok []token) (float64, bool) {
	if i := slices.IndexFunc(tok, func(t token) bool { return t.is("hundred") }); i >= 0 {
		hundreds, rest := 1.0, tok[i+1:]
		if i > 1 || i == 1 && !tok[0].is("a") {
			n, ok := spelled(tok[:i])
			if !ok || n < 1 || n > 9 {
				return 0, false
			}
			hundreds = n
		}
		if len(rest) == 0 {
			return hundreds * 100, true
		}
		if rest[0].is("and") {
			rest = rest[1:]
		}
		n, ok := spelled(rest)
		return hundreds*100 + n, ok && n < 100
	}
	switch len(tok) {
	case 1:
		if n := slices.Index(small, tok[0].lower); n >= 0 {
			return float64(n), true
		}
		n := slices.Index(tens, tok[0].lower)
		return float64(10 * n), n >= 2
	case 2, 3: // twenty one, twenty-one
		if len(tok) == 3 && !tok[1].isDash() {
			return 0, false
		}
		n, one := slices.Index(tens, tok[0].lower), slices.Index(small, tok[len(tok)-1].lower)
		return float64(10*n + one), n >= 2 && one >= 1 && one <= 9
	}
	return 0, false
}
