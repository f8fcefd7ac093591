package embedded

import (
	"slices"
	"strings"
)

// shape is all the door knows of a statement.
type shape struct {
	// insert says that data follows the statement: head is the part of it without
	// FORMAT, format its format, and data the offset of the data in the text.
	// named says that the statement names the format.
	insert, named bool
	head          string
	format        string
	data          int
}

// readShape finds where the data of an INSERT begins, in the way the engine's own
// parser does, and for other statements the format they name. complete says that
// text is the whole statement and not only its beginning.
func readShape(text string, complete bool) (s shape, enough bool) {
	t := &scanner{text: text}
	tok := t.next()
	for tok.text == "(" { // (SELECT …)
		tok = t.next()
	}
	if !tok.word("INSERT") {
		if !complete {
			return shape{}, tok.kind != tokenEnd && tok.end < len(text)
		}
		return shape{format: outputFormat(text)}, true
	}
	tok = t.next()
	if tok.word("INTO") {
		tok = t.next()
	}
	if tok.word("TABLE") || tok.word("FUNCTION") {
		tok = t.next()
	}
	depth := 0
	named := false // the table's name is behind us, so FORMAT is a keyword
	for ; tok.kind != tokenEnd; tok = t.next() {
		if !complete && tok.end == len(text) {
			return shape{}, false // the token may go on
		}
		switch {
		case tok.text == "(", tok.text == "{":
			if tok.text == "(" && depth == 0 && !named {
				return shape{}, true
			}
			depth++
		case tok.text == ")", tok.text == "}":
			depth--
			named = true
		case depth > 0:
		case tok.text == ";":
			return shape{}, true
		case tok.text == ".":
			named = false
		case !named:
			named = true
		case tok.word("SELECT"), tok.word("WITH"), tok.word("FROM"), tok.word("WATCH"):
			return shape{}, true
		case tok.word("VALUES"):
			return shape{insert: true, named: true, head: text[:tok.start], format: "Values", data: tok.end}, true
		case tok.word("FORMAT"):
			name := t.next()
			if name.kind != tokenWord || (!complete && name.end == len(text)) {
				return shape{}, complete || name.kind == tokenOther
			}
			data, sure := skipToData(text, name.end)
			if !sure && !complete {
				return shape{}, false
			}
			return shape{insert: true, named: true, head: text[:tok.start], format: name.text, data: data}, true
		}
	}
	if !complete {
		return shape{}, false
	}
	// INSERT INTO t (a, b) and nothing else: its data is in the format Values.
	if !named || depth != 0 {
		return shape{}, true
	}
	return shape{insert: true, head: text, format: "Values", data: len(text)}, true
}

// skipToData skips the blanks and the one line break between FORMAT and the data,
// which are not data. sure is false when the text ends before the data does begin.
func skipToData(text string, at int) (data int, sure bool) {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\f') {
		at++
	}
	if at < len(text) && text[at] == '\r' {
		at++
	}
	if at < len(text) && text[at] == '\n' {
		return at + 1, true
	}
	return at, at < len(text)
}

// outputFormat is the format a statement names for its answer, or "". FORMAT is a
// clause only at the end, or before SETTINGS.
func outputFormat(text string) string {
	t := &scanner{text: text}
	depth := 0
	format := ""
	var last [2]token
	for tok := t.next(); ; tok = t.next() {
		switch {
		case tok.text == "(":
			depth++
		case tok.text == ")":
			depth--
		case depth == 0 && (tok.kind == tokenEnd || tok.text == ";" || tok.word("SETTINGS")):
			if last[0].word("FORMAT") && last[1].kind == tokenWord {
				format = last[1].text
			}
		}
		if tok.kind == tokenEnd {
			return format
		}
		last[0], last[1] = last[1], tok
	}
}

// streamed names the formats whose answers can be cut between blocks and joined
// again: those without a beginning, an end, or anything between two rows, and in
// which a block is never empty, which is how the engine says that it has no more.
var streamed = map[string]bool{
	"native":    true,
	"rowbinary": true,
	"tsv":       true, "tabseparated": true, "tsvraw": true, "tabseparatedraw": true, "raw": true,
	"csv": true, "lineasstring": true,
	"jsoneachrow": true, "jsonlines": true, "ndjson": true, "jsonstringseachrow": true,
	"jsoncompacteachrow": true, "jsoncompactstringseachrow": true,
	"tskv": true, "msgpack": true,
}

// isStreamed reports whether an answer can go out block by block.
func (s shape) isStreamed(text string, settings []param) bool {
	// The one setting that gives a line format a beginning and an end.
	const brackets = "output_format_json_array_of_rows"
	return streamed[strings.ToLower(s.format)] && !strings.Contains(text, brackets) &&
		!slices.ContainsFunc(settings, func(p param) bool { return p.name == brackets })
}

type tokenKind int

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenOther
)

type token struct {
	kind       tokenKind
	text       string
	start, end int
}

// word compares a keyword; quoted identifiers are never keywords.
func (t token) word(keyword string) bool {
	return t.kind == tokenWord && strings.EqualFold(t.text, keyword)
}

// scanner splits SQL into words and the rest, jumping over comments and quotes.
type scanner struct {
	text string
	at   int
}

func (s *scanner) next() token {
	s.skipBlank()
	start := s.at
	if start >= len(s.text) {
		return token{start: start, end: start}
	}
	switch c := s.text[start]; {
	case isWord(c):
		for s.at < len(s.text) && isWord(s.text[s.at]) {
			s.at++
		}
		return token{tokenWord, s.text[start:s.at], start, s.at}
	case c == '\'' || c == '"' || c == '`':
		s.quoted(c)
	default:
		s.at++
	}
	return token{tokenOther, s.text[start:s.at], start, s.at}
}

// quoted jumps over a quoted text with its escapes, both \' and ”.
func (s *scanner) quoted(quote byte) {
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case quote:
			if s.at+1 < len(s.text) && s.text[s.at+1] == quote {
				s.at++
				continue
			}
			s.at++
			return
		}
	}
	s.at = len(s.text)
}

func (s *scanner) skipBlank() {
	for s.at < len(s.text) {
		rest := s.text[s.at:]
		switch {
		case strings.ContainsRune(" \t\r\n\f\v", rune(rest[0])):
			s.at++
		case strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "#!"), strings.HasPrefix(rest, "# "):
			if n := strings.IndexByte(rest, '\n'); n >= 0 {
				s.at += n + 1
			} else {
				s.at = len(s.text)
			}
		case strings.HasPrefix(rest, "/*"):
			if n := strings.Index(rest[2:], "*/"); n >= 0 {
				s.at += n + 4
			} else {
				s.at = len(s.text)
			}
		default:
			return
		}
	}
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
