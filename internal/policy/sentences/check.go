package sentences

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/policy"
)

// Fault says what is wrong between a text and a policy file.
type Fault string

// The faults.
const (
	// TextChanged: the whole text is not the one that the file is for.
	TextChanged Fault = "text changed"
	// NoSentence: the text says nothing of time, so it is hardly a policy.
	NoSentence Fault = "no sentence"
	// Unmapped: a sentence speaks of time, and no entry of the file is for it.
	Unmapped Fault = "unmapped sentence"
	// Gone: an entry of the file is for a sentence that the text does not have.
	Gone Fault = "changed sentence"
	// Differs: the sentence says another time than the values that it binds.
	Differs Fault = "value differs"
)

// Problem is one thing that is wrong, at a line of the text or of the file.
type Problem struct {
	Fault    Fault
	TextLine int // 0: the text as a whole
	FileLine int // 0: nowhere in the file
	What     string
}

// Found is one entry of the file, and where the text has its sentence.
type Found struct {
	policy.Sentence
	Lines []int // of the text; none: it is not there
	Says  []string
}

// Report is what a check found, the entries in the order of the file.
type Report struct {
	Policy   string
	Of       int // sentences of the text
	Timed    int // those that speak of time
	Entries  []Found
	Problems []Problem
}

// Check holds a loaded policy file against the published text, as plain text.
func Check(p *policy.Policy, text string) *Report {
	mapped := map[string]bool{}
	for _, e := range p.Sentences {
		mapped[e.SHA256] = true
	}
	all := Split(text, func(sum string) bool { return mapped[sum] })
	r := &Report{Policy: p.Version, Of: len(all)}
	if got := sum(Fold(text)); got != p.TextSHA256 {
		r.add(TextChanged, 0, 0, "its SHA-256 is %s, the file is for %s", got, p.TextSHA256)
	}
	if !p.Dated.IsZero() && !names(Fold(text), p.Dated) {
		r.add(Differs, 0, 0, "text.dated: the text does not name %s", p.Dated.Format(time.DateOnly))
	}
	bySum := map[string][]Sentence{}
	for _, s := range all {
		bySum[s.SHA256] = append(bySum[s.SHA256], s)
	}
	stated := map[string]bool{} // the paths whose value a number of the text says
	for _, e := range p.Sentences {
		for _, s := range bySum[e.SHA256] {
			for _, v := range e.Values {
				stated[v.Path] = stated[v.Path] || s.holds(v)
			}
		}
	}
	for _, e := range p.Sentences {
		f := Found{Sentence: e}
		for i, s := range bySum[e.SHA256] {
			if f.Lines = append(f.Lines, s.Line); i == 0 {
				f.Says = s.says()
				r.compare(e, s, stated)
			}
		}
		if len(f.Lines) == 0 {
			r.add(Gone, 0, e.Line, "section %s, %s: no sentence of the text has this sum", e.Section, e.About)
		}
		r.Entries = append(r.Entries, f)
	}
	r.places(p, bySum)
	for _, s := range all {
		if len(s.Times) == 0 {
			continue
		}
		r.Timed++
		if !mapped[s.SHA256] {
			r.add(Unmapped, s.Line, 0, "%s: bind or waive sha256 %s: %s", strings.Join(s.says(), ", "), s.SHA256, s.Text)
		}
	}
	if r.Timed == 0 {
		r.add(NoSentence, 0, 0, "the text says nothing of time")
	}
	return r
}

func (r *Report) add(f Fault, textLine, fileLine int, format string, args ...any) {
	r.Problems = append(r.Problems, Problem{f, textLine, fileLine, fmt.Sprintf(format, args...)})
}

// says lists the words of the sentence that speak of time.
func (s *Sentence) says() []string {
	var out []string
	for _, t := range s.Times {
		out = append(out, `"`+s.Text[t.Start:t.End]+`"`)
	}
	return out
}

// holds reports whether the sentence says the value.
func (s *Sentence) holds(v policy.Value) bool {
	return slices.ContainsFunc(s.Times, func(t Time) bool { return t.holds(v) })
}

// compare holds what a sentence binds to what it says. A value must be one of its
// numbers; where it is vague, or says nothing of time, an operator's value or a number
// of another sentence decides. A number must be one of the values, unless a part of
// the sentence is waived; the same goes for the anchor that a period counts from.
func (r *Report) compare(e policy.Sentence, s Sentence, stated map[string]bool) {
	open := true
	for _, t := range s.Times {
		open = open && !t.counted()
	}
	open = open || slices.ContainsFunc(s.Times, func(t Time) bool { return t.Kind == Vague })
	for _, v := range e.Values {
		switch {
		case v.Places != nil:
			continue
		case v.Denied:
			r.add(Differs, s.Line, v.Line, "%s: the file says no, the sentence does not", v.Path)
			continue
		}
		if s.holds(v) {
			if why := s.otherAnchor(v.From); why != "" && e.Waived == "" {
				r.add(Differs, s.Line, v.Line, "%s counts from %s, the sentence %s", v.Path, v.From, why)
			}
			continue
		}
		if open && (v.Operator || stated[v.Path]) {
			continue
		}
		value := v.Period.String()
		switch {
		case v.Age > 0:
			value = strconv.Itoa(v.Age)
		case v.Period == policy.Period{}:
			value = "the operator's"
		}
		r.add(Differs, s.Line, v.Line, "%s is %s, the sentence says %s", v.Path, value, cmp.Or(strings.Join(s.says(), ", "), "nothing of time"))
	}
	for _, t := range s.Times {
		if t.counted() && t.Low != (policy.Period{}) && e.Waived == "" && !slices.ContainsFunc(e.Values, t.holds) {
			r.add(Differs, s.Line, e.Line, "the sentence says %q, and no value that it binds does", s.Text[t.Start:t.End])
		}
	}
}

// otherAnchor says why a period of the sentence does not count from an anchor: it does
// not name what the anchor is about, or one of both is a request and the other is not.
func (s *Sentence) otherAnchor(anchor string) string {
	if anchor == "" {
		return ""
	}
	text := strings.ToLower(s.Text)
	about, _, _ := strings.Cut(anchor, ".")
	asked, asks := strings.HasSuffix(anchor, "_requested"), strings.Contains(text, "request")
	switch {
	case !strings.Contains(text, about):
		return "names no " + about
	case asked && !asks:
		return "names no request"
	case asks && !asked:
		return "names a request"
	}
	return ""
}

// counted reports whether there is a number with a unit.
func (t Time) counted() bool { return t.Kind == Exact || t.Kind == Range }

// holds reports whether the value is what the text says here.
func (t Time) holds(v policy.Value) bool {
	switch {
	case v.Age > 0:
		return t.Kind == Age && t.Age == v.Age
	case t.Low == policy.Period{} || v.Period == policy.Period{}:
		return false
	case t.Kind == Range && !v.Bound:
		return t.Low.NotOver(v.Period) && v.Period.NotOver(t.High)
	}
	return v.Period == t.Low || v.Period == t.High
}

// names reports whether the text has the day in one of the usual forms.
func names(text string, day time.Time) bool {
	ordinal := "th"
	if n := day.Day(); n/10 != 1 {
		switch n % 10 {
		case 1:
			ordinal = "st"
		case 2:
			ordinal = "nd"
		case 3:
			ordinal = "rd"
		}
	}
	text = strings.ToLower(text)
	for _, month := range []string{"January", "Jan", "Jan."} {
		for _, form := range []string{"%s 2, 2006", "%s 2{}, 2006", "%s 02, 2006", "%s 2 2006", "2 %s 2006", "2{} %s 2006", "2{} of %s 2006", "02 %s 2006"} {
			written := strings.ReplaceAll(day.Format(fmt.Sprintf(form, month)), "{}", ordinal)
			if hasWords(text, strings.ToLower(written)) {
				return true
			}
		}
	}
	for _, form := range []string{time.DateOnly, "2006/01/02", "02.01.2006", "2.1.2006", "01/02/2006", "02/01/2006", "1/2/2006", "2/1/2006"} {
		if hasWords(text, day.Format(form)) {
			return true
		}
	}
	return false
}

// hasWords reports whether text has the words, not as a part of longer ones.
func hasWords(text, words string) bool {
	for from := 0; ; {
		i := strings.Index(text[from:], words)
		if i < 0 {
			return false
		}
		start, end := from+i, from+i+len(words)
		if (start == 0 || !alnum(text[start-1])) && (end == len(text) || !alnum(text[end])) {
			return true
		}
		from = start + 1
	}
}

func alnum(c byte) bool { return c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' }
