package main

import (
	"archive/zip"
	"bytes"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/store"
)

// TestNoAddressIsStored loads a log and looks for its addresses wherever
// something was written: the bytes of the database's folder and of the logs,
// every column of every table as text (compressed blocks hide bytes), and a
// person's export. The same search over rows that were stored without redaction
// finds them, so it can.
func TestNoAddressIsStored(t *testing.T) {
	file, lines := sampleLog(t)
	addresses := addressesOf(t, lines)
	m := newMachine(t)
	p := m.start(nil, "LOG="+file, "LOG_LEVEL=debug")
	p.awaitReady()

	for name, text := range m.dump() {
		if a := find(text, addresses); a != "" {
			t.Errorf("table %s holds an address of the log (%s)", name, masked(a))
		}
	}
	// A log without users has nobody to export; the files of an empty export count too.
	user := m.sql("SELECT if(max(user_id) = '', 'nobody', max(user_id)) FROM request_events")
	for name, text := range m.export(user) {
		if a := find(text, addresses); a != "" {
			t.Errorf("%s of the export holds an address of the log (%s)", name, masked(a))
		}
	}
	if a := find([]byte(p.output()), addresses); a != "" {
		t.Errorf("the program printed an address of the log (%s)", masked(a))
	}
	p.interrupt()
	for _, folder := range []string{"clickhouse", "log"} {
		walk(t, m.dir+"/"+folder, func(path string, content []byte) {
			if a := find(content, addresses); a != "" {
				t.Errorf("%s holds an address of the log (%s)", path, masked(a))
			}
		})
	}

	// The control: the events of the same topics, stored as they came.
	control := m.start([]string{"-only", "clickhouse"})
	control.awaitReady()
	m.storeUnredacted(lines)
	if find(m.dump()["request_events"], addresses) == "" {
		t.Error("the search does not find addresses that are stored in full")
	}
	control.interrupt()
}

// addressesOf returns the distinct client addresses of a log.
func addressesOf(t *testing.T, lines []string) []string {
	t.Helper()
	var list []string
	for _, line := range lines {
		client, _, _ := strings.Cut(line, " ")
		if a, err := netip.ParseAddr(client); err == nil {
			list = append(list, a.String())
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) < 100 {
		t.Fatalf("the log has %d addresses: too few for a search that means something", len(list))
	}
	return list
}

// find returns the first of the addresses that stands in text as a whole, not
// as a part of a longer number.
func find(text []byte, addresses []string) string {
	wanted := make(map[string]bool, len(addresses))
	for _, a := range addresses {
		wanted[a] = true
	}
	inside := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == '.' || c == ':'
	}
	for i := 0; i < len(text); {
		if !inside(text[i]) {
			i++
			continue
		}
		end := i
		for end < len(text) && inside(text[end]) {
			end++
		}
		word := strings.Trim(string(text[i:end]), ".:")
		if wanted[word] {
			return word
		}
		// An address with a port, or glued to a word of hexadecimal letters.
		if host, _, ok := strings.Cut(word, ":"); ok && wanted[host] {
			return host
		}
		if w := strings.TrimLeft(word, "abcdefABCDEF"); wanted[w] {
			return w
		}
		i = end
	}
	return ""
}

// masked keeps an address out of the test's own output.
func masked(address string) string { return address[:1] + strings.Repeat("x", len(address)-1) }

// dump returns every table of the database as text.
func (m *machine) dump() map[string][]byte {
	m.t.Helper()
	tables := map[string][]byte{}
	for name := range strings.FieldsSeq(m.sql("SELECT name FROM system.tables WHERE database = 'lethe'")) {
		tables[name] = []byte(m.sql("SELECT * FROM " + name))
	}
	if len(tables["request_events"]) == 0 {
		m.t.Fatal("the dump of request_events is empty")
	}
	return tables
}

// export fetches a user's export and returns its files.
func (m *machine) export(user string) map[string][]byte {
	m.t.Helper()
	body := m.get("/v1/subjects/user:"+user+"/export", "Lethe-Purpose: access_request", "Lethe-Identity-Verified: in person")
	archive, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		m.t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range archive.File {
		r, err := f.Open()
		if err != nil {
			m.t.Fatal(err)
		}
		if files[f.Name], err = io.ReadAll(r); err != nil {
			m.t.Fatal(err)
		}
		r.Close()
	}
	return files
}

// storeUnredacted stores a row for each line whose fields are the line's own,
// past redaction: what the ingester would do without it.
func (m *machine) storeUnredacted(lines []string) {
	m.t.Helper()
	ctx := m.t.Context()
	db, err := store.Open(ctx, store.Options{DSN: "http://" + m.clickhouse + "/lethe"})
	if err != nil {
		m.t.Fatal(err)
	}
	defer db.Close()
	batch := db.NewBatch()
	decoder := codec.NewDecoder()
	var e event.Event
	var row event.Row
	for i, line := range lines {
		client, _, _ := strings.Cut(line, " ")
		value := `{"specversion":"1.0","id":"control","source":"/control","type":"t","time":"2026-01-01T00:00:00Z",` +
			`"data":{"http.request.method":"GET","http.response.status_code":200,"client.address":"` + client + `"}}`
		if err := decoder.Decode(event.Request, []byte(value), nil, &e); err != nil {
			m.t.Fatal(err)
		}
		row.Reset()
		row.ID, row.Source, row.Type = e.ID, e.Source, e.Type
		row.OccurredAt, row.ReceivedAt, row.RetainedFrom = e.Time, time.Now().UTC(), e.Time
		row.Retention, row.Offset = "usage@2y", int64(i)
		row.Text[event.TPath] = e.Text[event.ClientAddress]
		row.Number[event.NStatus] = 200
		batch.Add(&row)
	}
	if err := db.Insert(ctx, batch, "control"); err != nil {
		m.t.Fatal(err)
	}
}
