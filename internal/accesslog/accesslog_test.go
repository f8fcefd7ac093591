package accesslog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden file")

// show writes a parsed line for the golden file.
func show(l *Line) string {
	return fmt.Sprintf("client=%q user=%q time=%s method=%q path=%q version=%q status=%d size=%d agent=%q",
		l.Client, l.User, l.Time.Format(time.RFC3339Nano), l.Method, l.Path, l.Version, l.Status, l.Size, l.UserAgent)
}

// TestGolden parses every line of testdata/lines.log; a line that begins with #
// says what the next one is about.
func TestGolden(t *testing.T) {
	in, err := os.ReadFile("testdata/lines.log")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	var l Line
	for line := range strings.Lines(string(in)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			out.WriteString(line + "\n")
			continue
		}
		if err := Parse([]byte(line), &l); err != nil {
			fmt.Fprintf(&out, "refused: %v\n", err)
			continue
		}
		out.WriteString(show(&l) + "\n")
	}
	const golden = "testdata/lines.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(out.String(), "\n")
	for i, w := range strings.Split(string(want), "\n") {
		if i >= len(got) || got[i] != w {
			t.Errorf("line %d:\n got %s\nwant %s", i+1, strings.Join(got[min(i, len(got)):min(i+1, len(got))], ""), w)
		}
	}
}

const combined = `203.0.113.7 - alice [17/May/2015:10:05:03 +0200] "GET /a?b=c HTTP/1.1" 200 12 "http://example.com/" "Mozilla/5.0"`

func TestParseKeepsNothingOfTheLineBefore(t *testing.T) {
	var l, fresh Line
	if err := Parse([]byte(combined), &l); err != nil {
		t.Fatal(err)
	}
	bare := []byte(`192.0.2.1 - - [17/May/2015:10:05:03 +0000] "-" 408 -`)
	if err := errors.Join(Parse(bare, &l), Parse(bare, &fresh)); err != nil {
		t.Fatal(err)
	}
	if got, want := show(&l), show(&fresh); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEveryPrefixIsReadOrRefused(t *testing.T) {
	// A log that is being written ends anywhere.
	var l Line
	complete := 0
	for i := range len(combined) + 1 {
		if err := Parse([]byte(combined[:i]), &l); err == nil {
			complete++
			if l.Status != 200 {
				t.Errorf("%d bytes: got status %d, want 200", i, l.Status)
			}
		}
	}
	// "1", "12" and "12 " are whole sizes, and the user agent may be cut anywhere
	// behind its first quote.
	if want := 3 + len(`"Mozilla/5.0"`); complete != want {
		t.Errorf("got %d complete prefixes, want %d", complete, want)
	}
}

func TestParseNeedsNoMemory(t *testing.T) {
	lines := [][]byte{
		[]byte(combined),
		[]byte(`203.0.113.7 - - [17/May/2015:10:05:03 +0200] "GET /\xe4\"x HTTP/2.0" 200 12 "-" "a \\ b"`),
		[]byte(`broken`),
	}
	var l Line
	got := testing.AllocsPerRun(100, func() {
		for _, line := range lines {
			_ = Parse(line, &l) // the last one is broken
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func TestClockAgreesWithTimeParse(t *testing.T) {
	const layout = "02/Jan/2006:15:04:05 -0700"
	for _, zone := range []int{0, 3600, -5*3600 - 1800, 14 * 3600} {
		day := time.Date(1999, 12, 30, 23, 59, 58, 0, time.FixedZone("", zone))
		for range 1500 {
			text := day.Format(layout)
			got, ok := clock([]byte(text))
			if !ok || !got.Equal(day) {
				t.Fatalf("%s: got %s, %t; want %s", text, got, ok, day.UTC())
			}
			day = day.Add(31*time.Hour + 7*time.Minute + 13*time.Second)
		}
	}
}

func FuzzParse(f *testing.F) {
	in, err := os.ReadFile("testdata/lines.log")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(in) {
		f.Add(bytes.TrimSuffix(line, []byte("\n")))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		before := bytes.Clone(line)
		var l, again Line
		err := Parse(line, &l)
		if !bytes.Equal(line, before) {
			t.Fatal("the line was changed")
		}
		if err != nil {
			var r Reason
			if !errors.As(err, &r) {
				t.Fatalf("got %T, want a Reason", err)
			}
			return
		}
		if bytes.ContainsRune(l.Path, '?') {
			t.Fatalf("the path holds a query string: %q", l.Path)
		}
		if l.Status < 0 || l.Status > 999 || l.Size < 0 || len(l.Method) == 0 {
			t.Fatalf("impossible: %s", show(&l))
		}
		if err := Parse(line, &again); err != nil || show(&again) != show(&l) {
			t.Fatalf("a second parse differs: %v", err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	line := []byte(combined)
	var l Line
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Parse(line, &l); err != nil {
			b.Fatal(err)
		}
	}
}
