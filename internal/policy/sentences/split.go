// Package sentences holds a policy file against the text that was published:
// every sentence that speaks of time must be mapped to values of the file, or be
// waived with a reason, and the values must be the ones that it says.
//
// It reads plain text in English. It changes nothing and enforces nothing: whether
// the tables keep what the file says is another room's work.
//
// Route: policy.Load → sentences.Check → a table and an exit status.
package sentences

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sentence is one sentence of a text.
type Sentence struct {
	Line   int    // where it begins, from 1
	Text   string // white space folded, without the bullet before it
	SHA256 string // of Text
	Times  []Time // what it says of time, in order
}

// word is a word of the text, and what can begin with it.
type word struct {
	text  string
	line  int
	start start
}

// start says whether a sentence begins with a word.
type start uint8

const (
	inside start = iota
	goesOn       // first in a line that goes on with the sentence before
	fresh        // a sentence begins here
	firm         // behind a blank line or a bullet: nothing joins it with what is before
)

// Split cuts a text into sentences:
//
//   - A blank line, a bullet and the end of a line end a sentence. A full line goes on
//     in the next one: the next word would have made it longer than the longest line of
//     the text, and no full stop or colon ends it.
//   - A full stop, a question mark or an exclamation mark ends one where white space
//     and a capital letter follow, with quotes and brackets between them allowed, and
//     the word is no abbreviation. A colon and a semicolon end none.
//   - No line ends inside a time, such as "30" and "days" on two lines.
//   - Lines that together are a known sentence are that sentence: a text may be
//     broken into other lines. Known says so of the SHA-256.
//
// In doubt two sentences stay one, because a time must not fall between two.
func Split(text string, known func(sha256 string) bool) []Sentence {
	words := cut(text)
	join(words)
	mapped := make(map[int]int) // where known sentences begin and end
	for i := range words {
		if words[i].start != inside {
			if end := knownFrom(words, i, known); end > 0 {
				mapped[i] = end
			}
		}
	}
	var out []Sentence
	for i := 0; i < len(words); {
		end := mapped[i]
		if end == 0 {
			for end = i + 1; end < len(words) && words[end].start < fresh && mapped[end] == 0; {
				end++
			}
		}
		s := Sentence{Line: words[i].line, Text: phrase(words[i:end])}
		s.SHA256 = sum(s.Text)
		s.Times = Times(s.Text)
		out = append(out, s)
		i = end
	}
	return out
}

// maxParts bounds the lines and sentences that are tried together.
const maxParts = 40

// knownFrom returns where the longest known sentence ends that begins with the word,
// or 0.
func knownFrom(words []word, from int, known func(string) bool) int {
	found, parts := 0, 0
	for end := from + 1; end <= len(words) && parts < maxParts; end++ {
		if end < len(words) && words[end].start == inside {
			continue
		}
		parts++
		if known(sum(phrase(words[from:end]))) {
			found = end
		}
		if end < len(words) && words[end].start == firm {
			break
		}
	}
	return found
}

// Fold makes every run of white space one space and removes it from both ends.
func Fold(text string) string { return strings.Join(strings.Fields(text), " ") }

func sum(folded string) string {
	s := sha256.Sum256([]byte(folded))
	return hex.EncodeToString(s[:])
}

const bullets = "•‣◦▪●○·-–—*+"

func isBullet(w string) bool { return utf8.RuneCountInString(w) == 1 && strings.Contains(bullets, w) }

// cut finds the words and where sentences begin.
func cut(text string) []word {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	widest := 0
	for _, l := range lines {
		widest = max(widest, width(l))
	}
	var words []word
	blank := true // no line before, or an empty one
	for i, l := range lines {
		fields := strings.Fields(l)
		bullet := len(fields) > 0 && isBullet(fields[0])
		if bullet {
			fields = fields[1:]
		}
		for j, f := range fields {
			w := word{text: f, line: i + 1}
			switch {
			case len(words) == 0 || j == 0 && (blank || bullet):
				w.start = firm
			case ends(words[len(words)-1].text) && opens(f):
				w.start = fresh
			case j > 0:
			case stops(words[len(words)-1].text) || width(lines[i-1])+1+utf8.RuneCountInString(f) <= widest:
				w.start = fresh
			default:
				w.start = goesOn
			}
			words = append(words, w)
		}
		blank = len(fields) == 0
	}
	return words
}

func width(line string) int {
	return utf8.RuneCountInString(strings.TrimRightFunc(line, unicode.IsSpace))
}

// abbreviations end with a full stop that ends no sentence. The list is closed; one
// that lacks here cuts a sentence in two, and the sums say so.
var abbreviations = []string{"e.g.", "i.e.", "cf.", "vs.", "art.", "no.", "nos.", "sec.", "par.", "approx.", "inc.", "ltd.", "corp.", "co.", "mr.", "mrs.", "ms.", "dr.", "st."}

var initials = regexp.MustCompile(`^(?:\pL\.)+$`)

const closers, openers = `"'”’»)]`, `"'“‘«([`

// ends reports whether a sentence can end with the word.
func ends(w string) bool {
	w = strings.TrimLeft(strings.TrimRight(w, closers), openers)
	if w == "" || !strings.ContainsRune(".!?", rune(w[len(w)-1])) {
		return false
	}
	return !initials.MatchString(w) && !slices.Contains(abbreviations, strings.ToLower(w))
}

// stops reports whether a paragraph can end with the word.
func stops(w string) bool { return ends(w) || strings.HasSuffix(w, ":") || strings.HasSuffix(w, ";") }

// opens reports whether a sentence can begin with the word.
func opens(w string) bool {
	r, _ := utf8.DecodeRuneInString(strings.TrimLeft(w, openers))
	return unicode.IsUpper(r)
}

// join takes back the ends of lines that stand inside a time.
func join(words []word) {
	all := phrase(words)
	times := Times(all)
	at, next := 0, 0
	for i := range words {
		for next < len(times) && times[next].End <= at {
			next++
		}
		if next < len(times) && times[next].Start < at && words[i].start > goesOn {
			words[i].start = goesOn
		}
		at += len(words[i].text) + 1
	}
}

func phrase(words []word) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(w.text)
	}
	return b.String()
}
