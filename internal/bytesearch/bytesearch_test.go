package bytesearch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/dsn"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// table is request_events on a database of its own, with its folder on disk.
type table struct {
	t    *testing.T
	conn driver.Conn
	db   *store.Store
	dir  string
}

func open(t *testing.T) *table {
	t.Helper()
	ctx := context.Background()
	address := embeddedtest.ClickHouse(t)
	p, err := policy.Load("../../schemas/policies/itskode.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := migrate.Apply(ctx, migrate.Options{DSN: address, Policy: p}); err != nil {
		t.Fatal(err)
	}
	options, err := dsn.Parse(address, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(ctx, store.Options{DSN: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		conn.Close()
	})
	tb := &table{t: t, conn: conn, db: db}
	tb.scan("SELECT data_paths[1] FROM system.tables WHERE database = currentDatabase() AND name = 'request_events'", &tb.dir)
	return tb
}

func (tb *table) exec(statement string) {
	tb.t.Helper()
	if err := tb.conn.Exec(context.Background(), statement); err != nil {
		tb.t.Fatalf("%s: %v", statement, err)
	}
}

func (tb *table) scan(statement string, to any) {
	tb.t.Helper()
	if err := tb.conn.QueryRow(context.Background(), statement).Scan(to); err != nil {
		tb.t.Fatalf("%s: %v", statement, err)
	}
}

// places are the columns that a canary is put into, each of another shape.
var places = []string{"text", "word", "key", "map", "offsets"}

// insert stores 3,000 rows of one part, one of them with canaries in it.
func (tb *table) insert(canary string, offset int64) {
	tb.t.Helper()
	b := tb.db.NewBatch()
	at := time.Now().UTC().Truncate(time.Second)
	for i := range 3000 {
		var r event.Row
		r.Reset()
		r.Kind, r.Source, r.Type, r.Topic = event.Request, "/svc", "com.example.v1", "lethe.request"
		r.ID, r.Offset = fmt.Sprint("id-", canary, "-", i), offset+int64(i)
		r.OccurredAt, r.ReceivedAt, r.RetainedFrom = at, at, at
		r.Retention, r.Bucket = "request/pro@30d", int32(at.Unix()/86400)
		r.Text[event.TPath] = fmt.Sprintf("/page/%d/%x", i, i*7919)
		if i == 1500 {
			r.Text[event.TPath] = canary + "-text"
			r.Text[event.TOrganization] = canary + "-word"
			r.SubjectKeys = []string{canary + "-key"}
			r.Metadata = []event.Pair{{Key: "k", Value: canary + "-map"}}
			r.Text[event.TUserID] = canary + "-offsets"
		}
		b.Add(&r)
	}
	if err := tb.db.Insert(context.Background(), b, canary); err != nil {
		tb.t.Fatal(err)
	}
}

// find returns the kinds of folders in which every place of the canary was found,
// or fails when some were found and others not.
func (tb *table) find(canary string) (folders []string) {
	tb.t.Helper()
	var needles []string
	for _, p := range places {
		needles = append(needles, canary+"-"+p)
	}
	got, err := Search(tb.dir, needles...)
	if err != nil {
		tb.t.Fatal(err)
	}
	if got.Files == 0 {
		tb.t.Fatal("searched no file")
	}
	if n := len(got.Found); n != 0 && n != len(needles) {
		tb.t.Errorf("%s: found %d of %d places: %v", canary, n, len(needles), got.Found)
	}
	for _, files := range got.Found {
		for _, f := range files {
			if folder := filepath.Dir(f); !slices.Contains(folders, folder) {
				folders = append(folders, folder)
			}
		}
	}
	slices.Sort(folders)
	return folders
}

// TestBytesGoWithTheirRows follows two rows through a part's life: one expires.
func TestBytesGoWithTheirRows(t *testing.T) {
	for _, form := range []string{"Compact", "Wide"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			tb := open(t)
			if form == "Wide" {
				tb.exec("ALTER TABLE request_events MODIFY SETTING min_bytes_for_wide_part = 0")
			}
			tb.exec("ALTER TABLE request_events MODIFY SETTING merge_with_ttl_timeout = 1")
			gone, stays := "canary-goes", "canary-stays"
			tb.insert(gone, 0)
			tb.insert(stays, 10_000)
			var got string
			tb.scan("SELECT any(part_type) FROM system.parts WHERE database = currentDatabase() AND table = 'request_events' AND active", &got)
			if got != form {
				t.Fatalf("got %s parts, want %s", got, form)
			}
			for _, c := range []string{gone, stays} {
				if len(tb.find(c)) == 0 {
					t.Fatalf("%s: not found in active parts", c)
				}
			}
			if f := tb.find("canary-never"); len(f) != 0 {
				t.Fatalf("what was never stored: found in %v", f)
			}

			var partition string
			tb.scan("SELECT any(partition_id) FROM system.parts WHERE database = currentDatabase() AND table = 'request_events' AND active", &partition)
			tb.exec("ALTER TABLE request_events DETACH PARTITION ID '" + partition + "'")
			if f := tb.find(gone); !slices.ContainsFunc(f, func(s string) bool { return strings.HasPrefix(s, "detached") }) {
				t.Errorf("detached: found in %v", f)
			}
			tb.exec("ALTER TABLE request_events ATTACH PARTITION ID '" + partition + "'")

			// As the sweep does: by delivery. A mutation that named the person would
			// leave the name in its own file.
			tb.exec("ALTER TABLE request_events UPDATE expires_override = 1 WHERE src_offset < 10000 SETTINGS mutations_sync = 2")
			tb.await("its rows to go", func() bool {
				var n uint64
				tb.scan("SELECT count() FROM request_events WHERE src_offset < 10000", &n)
				return n == 0
			})
			if len(tb.find(gone)) == 0 {
				t.Error("not found in the inactive parts that are still on disk")
			}
			tb.exec("ALTER TABLE request_events MODIFY SETTING old_parts_lifetime = 1")
			tb.await("its bytes to go", func() bool { return len(tb.find(gone)) == 0 })
			if len(tb.find(stays)) == 0 {
				t.Error("what must stay is not found any more")
			}

			tb.exec("ALTER TABLE request_events UPDATE expires_override = 1 WHERE url_path = 'canary-named-text' SETTINGS mutations_sync = 2")
			named, err := Search(tb.dir, "canary-named-text")
			if err != nil {
				t.Fatal(err)
			}
			if f := named.Found["canary-named-text"]; len(f) != 1 || !strings.HasPrefix(f[0], "mutation_") {
				t.Errorf("the text of a mutation: found in %v", f)
			}
		})
	}
}

func (tb *table) await(what string, done func() bool) {
	tb.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.t.Fatalf("waited two minutes for %s", what)
		}
	}
}

// TestFrames makes files of every method, with a string inside a frame and one
// that lies across two.
func TestFrames(t *testing.T) {
	filler := strings.Repeat("nothing of interest, ", 500)
	for name, method := range map[string]compress.Method{"none": compress.None, "lz4": compress.LZ4, "zstd": compress.ZSTD} {
		t.Run(name, func(t *testing.T) {
			var file []byte
			for _, piece := range []string{filler + "inside" + filler, filler + "acr", "oss" + filler} {
				w := compress.NewWriter(compress.LevelZero, method)
				if err := w.Compress([]byte(piece)); err != nil {
					t.Fatal(err)
				}
				file = append(file, w.Data...)
			}
			dir := t.TempDir()
			write := func(name string, data []byte) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("data.bin", file)
			write("shifted.idx", append([]byte("a header"), file...))
			write("plain.txt", []byte("inside"))
			got, err := Search(dir, "inside", "across", "absent")
			if err != nil {
				t.Fatal(err)
			}
			if got.Files != 3 || got.Frames != 6 {
				t.Errorf("got %d files and %d frames, want 3 and 6", got.Files, got.Frames)
			}
			want := map[string][]string{"inside": {"data.bin", "plain.txt", "shifted.idx"}, "across": {"data.bin", "shifted.idx"}}
			if fmt.Sprint(got.Found) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v", got.Found, want)
			}
		})
	}
}

// TestUnreadable: what cannot be looked into is no proof of absence.
func TestUnreadable(t *testing.T) {
	w := compress.NewWriter(compress.LevelZero, compress.ZSTD)
	if err := w.Compress([]byte("something")); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"cut short": w.Data[:len(w.Data)-1], "damaged": append([]byte{w.Data[0] + 1}, w.Data[1:]...)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "data.bin"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Search(dir, "anything"); err == nil || !strings.Contains(err.Error(), "in no frame") {
			t.Errorf("%s: got %v, want an error", name, err)
		}
	}
	if _, err := Search(t.TempDir(), ""); err == nil {
		t.Error("an empty string: want an error")
	}
	if _, err := Search(filepath.Join(t.TempDir(), "absent"), "x"); err == nil {
		t.Error("no such folder: want an error")
	}
}
