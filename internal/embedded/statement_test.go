package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/go-faster/city"
)

func TestReadShape(t *testing.T) {
	for name, c := range map[string]struct {
		text               string
		insert             bool
		head, format, data string
	}{
		"select":                 {text: "SELECT 1"},
		"select with format":     {text: "SELECT 1 FORMAT JSON", format: "JSON"},
		"format before settings": {text: "SELECT 1 format CSV settings max_threads = 1;", format: "CSV"},
		"a column named format":  {text: "SELECT format, x FROM t", format: ""},
		"a function named so":    {text: "SELECT format('{}', x)", format: ""},
		"format in a text":       {text: "SELECT 'FORMAT JSON'", format: ""},
		"format in a comment":    {text: "SELECT 1 -- FORMAT JSON\n /* FORMAT CSV */", format: ""},
		"format in a subquery":   {text: "SELECT * FROM (SELECT 1 FORMAT JSON)", format: ""},
		"csv":                    {"INSERT INTO t FORMAT CSV\n1,2\n", true, "INSERT INTO t ", "CSV", "1,2\n"},
		"one line break is not data": {
			"INSERT INTO t (a) FORMAT TSV \t\r\n\n1", true, "INSERT INTO t (a) ", "TSV", "\n1"},
		"data on the same line": {"insert into t format JSONEachRow {\"a\":1}", true, "insert into t ", "JSONEachRow", "{\"a\":1}"},
		"settings between":      {"INSERT INTO t (a, b) SETTINGS x = 'FORMAT y' FORMAT Native", true, "INSERT INTO t (a, b) SETTINGS x = 'FORMAT y' ", "Native", ""},
		"values":                {"INSERT INTO t VALUES (1)", true, "INSERT INTO t ", "Values", " (1)"},
		"values at once":        {"INSERT INTO t(a)VALUES(1)", true, "INSERT INTO t(a)", "Values", "(1)"},
		"no format":             {"INSERT INTO t (a)", true, "INSERT INTO t (a)", "Values", ""},
		"comments":              {"/* hi; */ INSERT -- x\nINTO t /* FORMAT */ FORMAT CSV 1", true, "/* hi; */ INSERT -- x\nINTO t /* FORMAT */ ", "CSV", "1"},
		"a table named format":  {"INSERT INTO format FORMAT CSV 1", true, "INSERT INTO format ", "CSV", "1"},
		"db and table so named": {"INSERT INTO values.format FORMAT CSV 1", true, "INSERT INTO values.format ", "CSV", "1"},
		"quoted":                {"INSERT INTO `FORMAT x` (`a)`, \"VALUES\") FORMAT CSV 1", true, "INSERT INTO `FORMAT x` (`a)`, \"VALUES\") ", "CSV", "1"},
		"a parameter":           {"INSERT INTO {format:Identifier} FORMAT CSV 1", true, "INSERT INTO {format:Identifier} ", "CSV", "1"},
		"a function":            {"INSERT INTO FUNCTION file('FORMAT.csv', 'CSV') FORMAT CSV 1", true, "INSERT INTO FUNCTION file('FORMAT.csv', 'CSV') ", "CSV", "1"},
		"the word TABLE":        {"INSERT INTO TABLE t FORMAT CSV 1", true, "INSERT INTO TABLE t ", "CSV", "1"},
		"from a select":         {text: "INSERT INTO t SELECT 1"},
		"from a with":           {text: "INSERT INTO t WITH 1 AS x SELECT x"},
		"from a file":           {text: "INSERT INTO t FROM INFILE 'x' FORMAT CSV"},
		"nothing":               {text: ""},
		"an open quote":         {text: "INSERT INTO t (`a FORMAT CSV 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := readShape(c.text, true)
			if got.insert != c.insert || got.head != c.head || got.format != c.format {
				t.Errorf("got %+v, want %+v", got, c)
			}
			if c.insert && c.text[got.data:] != c.data {
				t.Errorf("got data %q, want %q", c.text[got.data:], c.data)
			}
		})
	}
}

// However the body arrives, the statement and its data are the same.
func TestReadTaskDoesNotDependOnThePieces(t *testing.T) {
	for name, c := range map[string]struct{ query, body, text, data string }{
		"insert in the body":   {"", "INSERT INTO t (a) FORMAT TSV\n1\n\n2;\n", "", "1\n\n2;\n"},
		"values in the body":   {"", "INSERT INTO t VALUES (1), (2)", "", " (1), (2)"},
		"insert in the URL":    {"INSERT INTO t FORMAT TSV", "\n\n1", "", "\n\n1"},
		"in both":              {"INSERT INTO t", "FORMAT TSV\n1\n", "", "1\n"},
		"select in the body":   {"", "SELECT 1", "SELECT 1", ""},
		"select in the URL":    {"SELECT 1", "", "SELECT 1", ""},
		"nothing":              {"", "", "", ""},
		"a long select":        {"", "SELECT '" + strings.Repeat("x", 300_000) + "'", "SELECT '" + strings.Repeat("x", 300_000) + "'", ""},
		"a word cut in pieces": {"", "INSERT INTO inserted FORMAT CSV 1", "", "1"},
	} {
		for way, cut := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "by halves": iotest.HalfReader, "by bytes": iotest.OneByteReader, "data with EOF": iotest.DataErrReader,
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				got, err := readTask(c.query, cut(strings.NewReader(c.body)))
				if err != nil {
					t.Fatal(err)
				}
				if got.text != c.text {
					t.Errorf("got text %.50q, want %.50q", got.text, c.text)
				}
				var data []byte
				if got.insert {
					if data, err = io.ReadAll(got.rest); err != nil {
						t.Fatal(err)
					}
				}
				if string(data) != c.data {
					t.Errorf("got data %q, want %q", data, c.data)
				}
			})
		}
	}
	broken := iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("INSERT INTO t FORMAT CSV 1")))
	if _, err := readTask("", broken); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("got %v for a body that breaks, want its error", err)
	}
	if _, err := readTask("", strings.NewReader("INSERT INTO t ("+strings.Repeat("a, ", 1<<20))); asException(err).code != codeSyntaxError {
		t.Errorf("got %v for a head without end, want code %d", err, codeSyntaxError)
	}
}

// Every prefix of a statement is either not enough or gives the same answer.
func FuzzReadShape(f *testing.F) {
	for _, seed := range []string{"INSERT INTO t (a) FORMAT TSV\n1", "INSERT INTO t VALUES (1)", "SELECT 1 FORMAT CSV", "/* */ insert into `x` select 1", "insert into `x` select1", "insert into `x` values1", "INSERT INTO a.b SETTINGS c = 'd' FORMAT Native \r\nx"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		whole, _ := readShape(text, true)
		if whole.data > len(text) || !strings.HasPrefix(text, whole.head) {
			t.Fatalf("%q: got %+v", text, whole)
		}
		for end := range len(text) {
			part, enough := readShape(text[:end], false)
			if !enough {
				continue
			}
			if part.insert != whole.insert || part.insert && part != whole {
				t.Fatalf("%q after %d bytes: got %+v, want %+v", text, end, part, whole)
			}
		}
	})
}

func FuzzFrameReader(f *testing.F) {
	w := compress.NewWriter(0, compress.LZ4)
	if err := w.Compress([]byte("some data, some data")); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(w.Data))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newFrameReader(bytes.NewReader(data))
		defer r.close()
		if got, err := io.ReadAll(io.LimitReader(r, 64<<20)); err == nil && len(got) == 0 && len(data) > 0 && len(data) < frameChecksum+frameHeader {
			t.Errorf("got nothing and no error from %d bytes", len(data))
		}
	})
}

func TestFrameReaderRefuses(t *testing.T) {
	w := compress.NewWriter(0, compress.LZ4)
	if err := w.Compress([]byte("some data, some data")); err != nil {
		t.Fatal(err)
	}
	resum := func(b []byte) []byte {
		sum := city.CH128(b[frameChecksum:])
		binary.LittleEndian.PutUint64(b[:8], sum.Low)
		binary.LittleEndian.PutUint64(b[8:16], sum.High)
		return b
	}
	set := func(at int, v uint32) []byte {
		b := bytes.Clone(w.Data)
		binary.LittleEndian.PutUint32(b[at:], v)
		return resum(b)
	}
	for name, c := range map[string]struct {
		data  []byte
		short bool // it ends early, and what comes next may still be right
	}{
		"half a header":                {w.Data[:10], true},
		"half a body":                  {w.Data[:len(w.Data)-1], true},
		"a promise of a gigabyte":      {set(17, frameLimit), true},
		"a promise of more":            {set(17, frameLimit+1), false},
		"smaller than its header":      {set(17, frameHeader-1), false},
		"unpacked to a gigabyte":       {set(21, frameLimit), false},
		"unpacked to less":             {set(21, 1), false},
		"an unknown method":            {resum(append(bytes.Clone(w.Data[:16]), append([]byte{0x11}, w.Data[17:]...)...)), false},
		"a checksum of something else": {append(make([]byte, 16), w.Data[16:]...), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFrameReader(bytes.NewReader(c.data))
			defer r.close()
			got, err := io.ReadAll(r)
			if want := codeCannotDecompress; !c.short && asException(err).code != want {
				t.Errorf("got %q and %v, want code %d", got, err, want)
			}
			if c.short && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %q and %v, want io.ErrUnexpectedEOF", got, err)
			}
		})
	}
}

func TestFramesRoundTrip(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789;\n\n"), 300_000)
	for _, method := range []string{"LZ4", "ZSTD", "NONE", ""} {
		t.Run(method, func(t *testing.T) {
			var packed bytes.Buffer
			if _, err := newFrameWriter(method, &packed).Write(data); err != nil {
				t.Fatal(err)
			}
			r := newFrameReader(iotest.HalfReader(&packed))
			defer r.close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, %v, want the same %d", len(got), err, len(data))
			}
		})
	}
}

func TestExceptionStatus(t *testing.T) {
	for name, c := range map[string]struct {
		text         string
		code, status int
	}{
		"unknown table":  {"Code: 60. DB::Exception: x. (UNKNOWN_TABLE)", 60, 404},
		"too many parts": {"Code: 252. DB::Exception: x. (TOO_MANY_PARTS)", 252, 500},
		"timeout":        {"Code: 159. DB::Exception: x. (TIMEOUT_EXCEEDED)", 159, 408},
		"no code":        {"something", 1002, 500},
		"code inside":    {"x Code: 60. y", 1002, 500},
	} {
		t.Run(name, func(t *testing.T) {
			e := newException(c.text)
			if e.code != c.code || e.status() != c.status {
				t.Errorf("got %d and status %d, want %d and %d", e.code, e.status(), c.code, c.status)
			}
		})
	}
}
