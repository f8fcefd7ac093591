package embedded

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// request is what one HTTP request asks for.
type request struct {
	id       string // shown to the client, and part of the statement's log_comment
	query    string
	database string
	format   string
	settings []param // name and value, sorted by name
	params   []param

	framedAnswer  bool // compress=1: the answer is in ClickHouse's own frames
	framedBody    bool // decompress=1
	frameMethod   string
	encoding      string // Content-Encoding of the answer
	waitForEnd    bool
	nativeVersion string // client_protocol_version
}

// notSettings are URL parameters of the HTTP protocol. All others are settings.
var notSettings = map[string]bool{
	"query": true, "database": true, "default_format": true, "user": true, "password": true,
	"query_id": true, "quota_key": true, "compress": true, "decompress": true,
	"wait_end_of_query": true, "buffer_size": true, "client_protocol_version": true,
	"stacktrace": true, "session_timeout": true, "session_check": true, "close_session": true,
	// These two are settings that only the HTTP interface acts on.
	"enable_http_compression": true, "network_compression_method": true, "network_zstd_compression_level": true,
}

// readRequest reads URL and headers. The body is not touched.
func readRequest(r *http.Request) (*request, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, makeException(codeBadArguments, "BAD_ARGUMENTS", "The URL's query cannot be parsed")
	}
	get := func(name string) string {
		all := values[name]
		if len(all) == 0 {
			return ""
		}
		return all[len(all)-1]
	}
	header := func(name, otherwise string) string {
		if v := r.Header.Get(name); v != "" {
			return v
		}
		return otherwise
	}
	for _, name := range []string{"session_id", "role"} {
		if get(name) != "" {
			return nil, makeException(codeNotImplemented, "NOT_IMPLEMENTED", "The embedded engine has no "+name+": every request stands alone")
		}
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
		return nil, makeException(codeNotImplemented, "NOT_IMPLEMENTED", "The embedded engine takes no external tables")
	}
	q := &request{
		id:            get("query_id"),
		query:         strings.Join(values["query"], ""),
		database:      header("X-ClickHouse-Database", get("database")),
		format:        header("X-ClickHouse-Format", get("default_format")),
		framedAnswer:  isOn(get("compress")),
		framedBody:    isOn(get("decompress")),
		frameMethod:   strings.ToUpper(get("network_compression_method")),
		waitForEnd:    isOn(get("wait_end_of_query")),
		nativeVersion: get("client_protocol_version"),
	}
	if q.id == "" {
		q.id = newQueryID()
	}
	if q.format == "" {
		q.format = "TabSeparated"
	}
	if v := get("enable_http_compression"); v == "" || isOn(v) {
		// A server needs enable_http_compression=1; a client that sends
		// Accept-Encoding can read what it gets, and clickhouse-go relies on it.
		q.encoding = chooseEncoding(r.Header.Get("Accept-Encoding"))
	}
	for name := range values {
		if notSettings[name] {
			continue
		}
		if bare, ok := strings.CutPrefix(name, "param_"); ok {
			q.params = append(q.params, param{bare, get(name)})
			continue
		}
		if !isSettingName(name) {
			return nil, makeException(115, "UNKNOWN_SETTING", "Unknown setting '"+name+"'")
		}
		q.settings = append(q.settings, param{name, get(name)})
	}
	slices.SortFunc(q.settings, func(a, b param) int { return strings.Compare(a.name, b.name) })
	return q, nil
}

func isOn(v string) bool { return v == "1" || strings.EqualFold(v, "true") }

func isSettingName(name string) bool {
	for i := range len(name) {
		if c := name[i]; !isWord(c) || c >= 0x80 {
			return false
		}
	}
	return name != ""
}

func newQueryID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// setup is the statements that give a connection the request's settings and
// database. A GET changes no data, as on a server. mark is the log_comment by
// which a running statement is found again.
func (q *request) setup(method, mark string) []string {
	set := make([]string, 0, len(q.settings)+2)
	for _, s := range q.settings {
		if s.name == "log_comment" {
			mark = s.value + " " + mark
			continue
		}
		set = append(set, s.name+" = "+quote(s.value))
	}
	set = append(set, "log_comment = "+quote(mark))
	if method == http.MethodGet || method == http.MethodHead {
		set = append(set, "readonly = '2'")
	}
	statements := []string{"SET " + strings.Join(set, ", ")}
	if q.database != "" && q.database != "default" {
		statements = append(statements, "USE `"+escaper.Replace(q.database)+"`")
	}
	return statements
}

// quote writes a text as a literal of ClickHouse: SET takes no query parameters.
func quote(s string) string { return "'" + escaper.Replace(s) + "'" }

var escaper = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "`", "\\`")

// authorized compares the user and password given in headers, basic
// authentication or the URL, in that order.
func (d *ClickHouse) authorized(r *http.Request) bool {
	user, password := r.Header.Get("X-ClickHouse-User"), r.Header.Get("X-ClickHouse-Key")
	if user == "" && password == "" {
		if u, p, ok := r.BasicAuth(); ok {
			user, password = u, p
		} else {
			values := r.URL.Query()
			user, password = values.Get("user"), values.Get("password")
		}
	}
	if user == "" {
		user = "default"
	}
	sameUser := subtle.ConstantTimeCompare([]byte(user), []byte(d.user))
	samePassword := subtle.ConstantTimeCompare([]byte(password), []byte(d.password))
	return sameUser&samePassword == 1
}

const (
	// maxHead bounds how far the data of an INSERT can be from its beginning.
	maxHead = 1 << 20
	// maxQuery bounds a statement without data.
	maxQuery = 64 << 20
)

// task is a request's statement: either an INSERT with its data, or a text.
type task struct {
	shape
	text string    // of a statement that is no INSERT with data
	rest io.Reader // the data of one that is
}

// readTask finds the statement in URL and body.
func readTask(query string, body io.Reader) (task, error) {
	if s, _ := readShape(query, true); s.insert && s.named {
		return task{shape: s, rest: io.MultiReader(strings.NewReader(query[s.data:]), body)}, nil
	}
	if query != "" {
		query += "\n"
	}
	in := bufio.NewReaderSize(io.MultiReader(strings.NewReader(query), body), 64<<10)
	var head bytes.Buffer
	piece := make([]byte, 64<<10)
	for {
		n, err := in.Read(piece)
		head.Write(piece[:n])
		if err != nil && err != io.EOF {
			return task{}, err
		}
		complete := err == io.EOF
		s, enough := readShape(head.String(), complete)
		switch {
		case s.insert:
			return task{shape: s, rest: io.MultiReader(bytes.NewReader(head.Bytes()[s.data:]), in)}, nil
		case complete:
			return wholeTask(head.String()), nil
		case enough:
			rest, err := io.ReadAll(io.LimitReader(in, maxQuery))
			if err != nil {
				return task{}, err
			}
			if len(rest) == maxQuery {
				return task{}, makeException(codeSyntaxError, "SYNTAX_ERROR", "Max query size exceeded")
			}
			head.Write(rest)
			return wholeTask(head.String()), nil
		case head.Len() > maxHead:
			return task{}, makeException(codeSyntaxError, "SYNTAX_ERROR", "Max query size exceeded")
		}
	}
}

// wholeTask is a statement without data.
func wholeTask(text string) task {
	s, _ := readShape(text, true)
	return task{shape: s, text: strings.TrimSuffix(text, "\n")}
}
