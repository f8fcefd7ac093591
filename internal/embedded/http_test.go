package embedded_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

func TestHTTPAnswers(t *testing.T) {
	d := openDoor(t)
	for name, c := range map[string]struct {
		method, statement string
		pairs             []string
		want              string
	}{
		"tab separated is the default":     {"POST", "SELECT 1, 'a'", nil, "1\ta"},
		"default_format":                   {"POST", "SELECT 1 AS n", []string{"default_format", "JSONEachRow"}, `{"n":1}`},
		"FORMAT wins":                      {"POST", "SELECT 1 AS n FORMAT CSV", []string{"default_format", "JSON"}, "1"},
		"a head only once":                 {"POST", "SELECT number AS n FROM numbers(4) SETTINGS max_block_size = 2 FORMAT CSVWithNames", nil, "\"n\"\n0\n1\n2\n3"},
		"a head only once, by default":     {"POST", "SELECT number AS n FROM numbers(4) SETTINGS max_block_size = 2", []string{"default_format", "TSVWithNames"}, "n\n0\n1\n2\n3"},
		"a separator between blocks":       {"POST", "SELECT number AS n FROM numbers(4) FORMAT Values SETTINGS max_block_size = 1", nil, "(0),(1),(2),(3)"},
		"many blocks":                      {"POST", "SELECT sum(n) FROM (SELECT number AS n FROM numbers(100000)) SETTINGS max_block_size = 7", nil, "4999950000"},
		"a filter that drops whole blocks": {"POST", "SELECT number FROM numbers(1000000) WHERE number > 999997 SETTINGS max_block_size = 100", nil, "999998\n999999"},
		"query in the URL":                 {"GET", "", []string{"query", "SELECT 2"}, "2"},
		"query in URL and body":            {"POST", "+ 2", []string{"query", "SELECT 2"}, "4"},
		"settings":                         {"POST", "SELECT getSetting('max_threads'), getSetting('log_comment') LIKE 'it\\'s \\\\ here%'", []string{"max_threads", "3", "log_comment", `it's \ here`}, "3\t1"},
		"parameters":                       {"POST", "SELECT {a:Array(UInt8)}, {s:String}", []string{"param_a", "[1,2]", "param_s", `a\tb`}, "[1,2]\ta\\tb"},
		"other statements":                 {"POST", "EXISTS TABLE nowhere", nil, "0"},
		"a comment and a semicolon":        {"POST", "-- hello\nSELECT 1; -- bye", nil, "1"},
		"rows in brackets":                 {"POST", "SELECT number AS n FROM numbers(2) SETTINGS max_block_size = 1 FORMAT JSONEachRow", []string{"output_format_json_array_of_rows", "1"}, "[\n{\"n\":0},\n{\"n\":1}\n]"},
		"totals":                           {"POST", "SELECT number AS n, count() FROM numbers(2) GROUP BY n WITH TOTALS ORDER BY n", nil, "0\t1\n1\t1\n\n0\t2"},
		"nothing written":                  {"POST", "SELECT number, throwIf(number = -1) FROM numbers(10) FORMAT Null", nil, ""},
		"empty texts":                      {"POST", "SELECT '' FROM numbers(3) SETTINGS max_block_size = 1 FORMAT RawBLOB", nil, ""},
		"no rows":                          {"POST", "SELECT 1 WHERE 0", nil, ""},
		"waits for the end":                {"POST", "SELECT number FROM numbers(3) SETTINGS max_block_size = 1", []string{"wait_end_of_query", "1"}, "0\n1\n2"},
		"no word INSERT":                   {"POST", "SELECT 'INSERT INTO t FORMAT CSV 1'", nil, "INSERT INTO t FORMAT CSV 1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := d.request(t.Context(), strings.NewReader(c.statement), c.pairs...)
			r.Method = c.method
			if got := d.send(r).must(t); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestHTTPErrors(t *testing.T) {
	d := openDoor(t)
	for name, c := range map[string]struct {
		statement string
		pairs     []string
		status    int
		code      string
	}{
		"unknown table":     {"SELECT * FROM nowhere", nil, 404, "60"},
		"syntax":            {"SELEC 1", nil, 400, "62"},
		"two statements":    {"CREATE TABLE a (n UInt8) ENGINE = Memory; DROP TABLE a", nil, 400, "62"},
		"unknown setting":   {"SELECT 1", []string{"nonsense", "1"}, 404, "115"},
		"impossible name":   {"SELECT 1", []string{"a b", "1"}, 404, "115"},
		"of tables only":    {"SELECT 1", []string{"fsync_after_insert", "1"}, 404, "115"},
		"unknown database":  {"SELECT 1", []string{"database", "no`where"}, 404, "81"},
		"missing parameter": {"SELECT {a:UInt8}", nil, 400, "456"},
		"session":           {"SELECT 1", []string{"session_id", "s"}, 501, "48"},
		"unknown format":    {"SELECT 1 FORMAT Nonsense", nil, 404, "73"},
		"unknown format in": {"INSERT INTO FUNCTION null('n UInt8') FORMAT Nonsense 1", nil, 404, "73"},
		"in format Null":    {"SELECT throwIf(number = 5) FROM numbers(10) FORMAT Null", nil, 500, "395"},
		"held back":         {"SELECT throwIf(number = 5) FROM numbers(10) SETTINGS max_block_size = 1", []string{"wait_end_of_query", "1"}, 500, "395"},
	} {
		t.Run(name, func(t *testing.T) {
			r := d.post(c.statement, c.pairs...)
			if r.status != c.status {
				t.Errorf("got status %d, want %d", r.status, c.status)
			}
			if got := r.header.Get("X-ClickHouse-Exception-Code"); got != c.code {
				t.Errorf("got code %s, want %s", got, c.code)
			}
			if want := "Code: " + c.code + ". DB::Exception: "; !strings.HasPrefix(r.text, want) {
				t.Errorf("got %q, want it to begin with %q", r.text, want)
			}
		})
	}
}

func TestHTTPErrorInTheMiddleCutsTheConnection(t *testing.T) {
	d := openDoor(t)
	r := d.post("SELECT randomString(100), throwIf(number = 50000) FROM numbers(100000) SETTINGS max_block_size = 1000, max_threads = 1 FORMAT TSV")
	if r.status != http.StatusOK || r.err == nil {
		t.Fatalf("got status %d and %v, want 200 and a body that breaks off", r.status, r.err)
	}
	tag := r.header.Get("X-ClickHouse-Exception-Tag")
	if want := "\r\n__exception__\r\n" + tag + "\r\nCode: 395."; len(tag) != 16 || !strings.Contains(r.text, want) {
		t.Errorf("got no %q in the body's end %q", want, r.text[max(0, len(r.text)-400):])
	}
	if want := " " + tag + "\r\n__exception__\r\n"; !strings.HasSuffix(r.text, want) {
		t.Errorf("got %q, want it to end with %q", r.text[max(0, len(r.text)-100):], want)
	}
}

func TestHTTPHeaders(t *testing.T) {
	d := openDoor(t)
	r := d.post("SELECT 1", "query_id", "mine")
	r.must(t)
	for name, want := range map[string]string{
		"X-ClickHouse-Query-Id": "mine", "X-ClickHouse-Format": "TabSeparated", "Content-Type": "text/tab-separated-values; charset=UTF-8",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	d.post("CREATE TABLE h (n UInt8) ENGINE = MergeTree ORDER BY n").must(t)
	if got, want := d.post("INSERT INTO h VALUES (1), (2)").header.Get("X-ClickHouse-Summary"), `"written_rows":"2"`; !strings.Contains(got, want) {
		t.Errorf("got summary %s, want %s in it", got, want)
	}
	for _, path := range []string{"ping", ""} {
		answer, err := d.client.Get(d.base + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if got, want := string(text), "Ok.\n"; err != nil || got != want {
			t.Errorf("/%s: got %q, %v, want %q", path, got, err, want)
		}
	}
}

func TestHTTPGetChangesNothing(t *testing.T) {
	d := openDoor(t)
	r := d.request(t.Context(), http.NoBody, "query", "CREATE TABLE g (n UInt8) ENGINE = Memory")
	r.Method = http.MethodGet
	if got, want := d.send(r).header.Get("X-ClickHouse-Exception-Code"), "164"; got != want {
		t.Errorf("got code %q, want %s (READONLY)", got, want)
	}
}

// nativeBlock is one column n of one block, as Lethe's store writes them.
func nativeBlock(t *testing.T, values ...string) []byte {
	t.Helper()
	col := new(proto.ColStr)
	for _, v := range values {
		col.Append(v)
	}
	var buf proto.Buffer
	if err := (proto.Block{Columns: 1, Rows: len(values)}).EncodeRawBlock(&buf, 0, []proto.InputColumn{{Name: "s", Data: col}}); err != nil {
		t.Fatal(err)
	}
	return buf.Buf
}

func frame(t *testing.T, method compress.Method, data []byte) []byte {
	t.Helper()
	w := compress.NewWriter(0, method)
	if err := w.Compress(data); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(w.Data)
}

// Native data holds every byte, so nothing in it may be taken for SQL.
func TestHTTPInsertNative(t *testing.T) {
	d := openDoor(t)
	d.post("CREATE TABLE n (s String) ENGINE = MergeTree ORDER BY s").must(t)
	var values []string
	for i := range 1000 {
		values = append(values, fmt.Sprintf("%d;\n\n; \x00\xff' \" ` -- /* \r\n\r\n INSERT INTO n FORMAT CSV", i))
	}
	blocks := append(nativeBlock(t, values[:500]...), nativeBlock(t, values[500:]...)...)
	packed := func(pack func(io.Writer) io.WriteCloser) []byte {
		var buf bytes.Buffer
		w := pack(&buf)
		w.Write(blocks)
		w.Close()
		return buf.Bytes()
	}
	const statement = "INSERT INTO n (s) FORMAT Native"
	for name, c := range map[string]struct {
		statement string
		body      []byte
		encoding  string
		pairs     []string
	}{
		"plain":              {statement, blocks, "", nil},
		"line break behind":  {statement + " \n", blocks, "", nil},
		"in the body":        {"", append([]byte(statement+"\n"), blocks...), "", nil},
		"frames of lz4":      {statement, append(frame(t, compress.LZ4, blocks[:777]), frame(t, compress.LZ4, blocks[777:])...), "", []string{"decompress", "1"}},
		"frames of zstd":     {statement, frame(t, compress.ZSTD, blocks), "", []string{"decompress", "1"}},
		"frames of nothing":  {statement, frame(t, compress.None, blocks), "", []string{"decompress", "1"}},
		"gzip":               {statement, packed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }), "gzip", nil},
		"lz4":                {statement, packed(func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) }), "lz4", nil},
		"zstd":               {statement, packed(func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }), "zstd", nil},
		"settings of Lethe":  {statement, blocks, "", []string{"async_insert", "0", "max_partitions_per_insert_block", "0", "optimize_on_insert", "0"}},
		"settings in itself": {"INSERT INTO n (s) SETTINGS async_insert = 0 FORMAT Native", blocks, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			d.post("TRUNCATE TABLE n").must(t)
			r := d.request(t.Context(), bytes.NewReader(c.body), append(c.pairs, "query", c.statement)...)
			if c.encoding != "" {
				r.Header.Set("Content-Encoding", c.encoding)
			}
			d.send(r).must(t)
			got := d.post("SELECT count(), uniqExact(s), sum(length(s)) FROM n").must(t)
			want := fmt.Sprintf("1000\t1000\t%d", len(strings.Join(values, "")))
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestHTTPInsertFormats(t *testing.T) {
	d := openDoor(t)
	d.post("CREATE TABLE f (a UInt32, b String DEFAULT 'none') ENGINE = MergeTree ORDER BY a").must(t)
	for name, c := range map[string]struct{ statement, body string }{
		"values":             {"INSERT INTO f VALUES", "(1, 'x;y'), (2, 'z')"},
		"values in the body": {"", "INSERT INTO f (a, b) VALUES (1, 'x;y'), (2, concat('', 'z'));"},
		"csv":                {"INSERT INTO f FORMAT CSV", "1,x;y\n2,z\n"},
		"csv, part in URL":   {"INSERT INTO f FORMAT CSV 1,x;y\n", "2,z\n"},
		"json":               {"INSERT INTO f FORMAT JSONEachRow", `{"a":1,"b":"x;y"} {"a":2,"b":"z"}`},
		"row binary":         {"INSERT INTO f FORMAT RowBinary", "\x01\x00\x00\x00\x03x;y\x02\x00\x00\x00\x01z"},
		"quoted table":       {"INSERT INTO `f` (`a`, \"b\") FORMAT TSV", "1\tx;y\n2\tz\n"},
	} {
		t.Run(name, func(t *testing.T) {
			d.post("TRUNCATE TABLE f").must(t)
			d.insert(c.statement, []byte(c.body)).must(t)
			if got, want := d.post("SELECT a, b FROM f ORDER BY a").must(t), "1\tx;y\n2\tz"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestHTTPInsertFromSelect(t *testing.T) {
	d := openDoor(t)
	d.post("CREATE TABLE s (n UInt64) ENGINE = MergeTree ORDER BY n").must(t)
	d.post("INSERT INTO s SELECT number FROM numbers({n:UInt64})", "param_n", "10").must(t)
	d.post("INSERT INTO s WITH 5 AS x SELECT x").must(t)
	if got, want := d.post("SELECT count() FROM s").must(t), "11"; got != want {
		t.Errorf("got %s rows, want %s", got, want)
	}
}

// A body that ends early must not be taken for a shorter one.
func TestHTTPInsertThatBreaksOff(t *testing.T) {
	d := openDoor(t)
	d.post("CREATE TABLE b (s String) ENGINE = MergeTree ORDER BY s").must(t)
	block := nativeBlock(t, "one", "two")
	corrupt := frame(t, compress.LZ4, block)
	corrupt[len(corrupt)-1] ^= 1
	huge := frame(t, compress.LZ4, block)
	binary.LittleEndian.PutUint32(huge[21:], 1<<31)
	for name, c := range map[string]struct {
		body  []byte
		pairs []string
		code  string
	}{
		"inside a block":      {block[:len(block)-2], nil, "33"},
		"inside a frame":      {corrupt[:20], []string{"decompress", "1"}, "33"},
		"a corrupt frame":     {corrupt, []string{"decompress", "1"}, "271"},
		"a frame of 2 GiB":    {huge, []string{"decompress", "1"}, "271"},
		"after a whole frame": {append(frame(t, compress.LZ4, block), corrupt[:20]...), []string{"decompress", "1"}, "33"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := d.insert("INSERT INTO b FORMAT Native", c.body, c.pairs...).header.Get("X-ClickHouse-Exception-Code"); got != c.code {
				t.Errorf("got code %q, want %s", got, c.code)
			}
			if got := d.post("SELECT count() FROM b").must(t); got != "0" {
				t.Errorf("got %s rows of it, want 0", got)
			}
		})
	}
	t.Run("the client goes away between two blocks", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		body, feed := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			answer, err := d.client.Do(d.request(ctx, body, "query", "INSERT INTO b FORMAT Native"))
			if err == nil {
				answer.Body.Close()
			}
			ended <- err
		}()
		if _, err := feed.Write(block); err != nil {
			t.Fatal(err)
		}
		running := func() string {
			return d.post("SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO b %'").must(t)
		}
		until(t, "the insert runs", func() bool { return running() == "1" })
		cancel()
		feed.CloseWithError(context.Canceled) // Do waits for its body
		if err := <-ended; err == nil {
			t.Error("got an answer, want an error")
		}
		until(t, "the insert is gone", func() bool { return running() == "0" })
		if got := d.post("SELECT count() FROM b").must(t); got != "0" {
			t.Errorf("got %s rows of it, want 0", got)
		}
	})
}

// Settings must reach the INSERT itself: the engine's own list says so while it
// runs.
func TestHTTPSettingsReachTheInsert(t *testing.T) {
	d := openDoor(t)
	d.post("CREATE TABLE i (s String) ENGINE = MergeTree ORDER BY s SETTINGS non_replicated_deduplication_window = 100, fsync_after_insert = 1, fsync_part_directory = 1").must(t)
	settings := []string{"async_insert", "0", "max_partitions_per_insert_block", "0", "optimize_on_insert", "0",
		"insert_deduplication_token", "topic/0/1-9", "insert_deduplicate", "1"}
	body, feed := io.Pipe()
	answered := make(chan reply, 1)
	r := d.request(t.Context(), body, append(settings, "query", "INSERT INTO i FORMAT Native")...)
	go func() { answered <- d.send(r) }()
	block := nativeBlock(t, "a")
	if _, err := feed.Write(block); err != nil {
		t.Fatal(err)
	}
	var names, want []string
	for i := 0; i < len(settings); i += 2 {
		// Settings holds what differs from the default; log_comment is the door's.
		names = append(names, "Settings['"+settings[i]+"']")
		want = append(want, settings[i+1])
	}
	var got string
	until(t, "the insert runs", func() bool {
		got = d.post("SELECT " + strings.Join(names, ", ") + " FROM system.processes WHERE query LIKE 'INSERT INTO i %'").must(t)
		return got != ""
	})
	if got != strings.Join(want, "\t") {
		t.Errorf("got %q, want %q", got, strings.Join(want, "\t"))
	}
	feed.Close()
	(<-answered).must(t)
	d.insert("INSERT INTO i FORMAT Native", nativeBlock(t, "other"), settings...).must(t)
	if got, want := d.post("SELECT groupArray(s) FROM i").must(t), "['a']"; got != want {
		t.Errorf("got %s after a repeat of the token, want %s", got, want)
	}
	r2 := d.insert("INSERT INTO i FORMAT Native", nativeBlock(t, "third"), "insert_deduplication_token", "another")
	r2.must(t)
	if got, want := d.post("SELECT count() FROM i").must(t), "2"; got != want {
		t.Errorf("got %s rows after another token, want %s", got, want)
	}
}

func TestHTTPPackedAnswers(t *testing.T) {
	d := openDoor(t)
	const statement = "SELECT number FROM numbers(300000)"
	want := d.post(statement).must(t)
	for name, c := range map[string]struct {
		accept string
		unpack func(io.Reader) (io.Reader, error)
	}{
		"gzip": {"gzip", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		"lz4":  {"lz4", func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil }},
		"zstd": {"zstd;q=1, gzip;q=0.5", func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := d.request(t.Context(), strings.NewReader(statement))
			r.Header.Set("Accept-Encoding", c.accept)
			answer := d.send(r)
			if got := answer.header.Get("Content-Encoding"); got != name {
				t.Fatalf("got Content-Encoding %q, want %q", got, name)
			}
			plain, err := c.unpack(strings.NewReader(answer.must(t) + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(io.LimitReader(plain, int64(len(want)))); err != nil || string(got) != want {
				t.Errorf("got %d bytes and %v, want the same %d", len(got), err, len(want))
			}
		})
	}
	for _, method := range []string{"LZ4", "ZSTD", "NONE"} {
		t.Run("frames of "+method, func(t *testing.T) {
			answer := d.post(statement, "compress", "1", "network_compression_method", method)
			got, err := io.ReadAll(io.LimitReader(compress.NewReader(strings.NewReader(answer.text)), int64(len(want))))
			if err != nil || string(got) != want {
				t.Errorf("got %d bytes and %v, want the same %d", len(got), err, len(want))
			}
		})
	}
}
