package fetch

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go"
	"pgregory.net/rapid"
)

var codecs = []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}

func TestReaderAgreesWithKafkaGo(t *testing.T) {
	blob := rapid.OneOf(rapid.Just[[]byte](nil), rapid.SliceOfN(rapid.Byte(), 0, 300),
		rapid.Map(rapid.IntRange(0, 200_000), func(n int) []byte { return slices.Repeat([]byte("lethe "), n/6) }))
	header := rapid.Custom(func(t *rapid.T) Header {
		return Header{Key: rapid.StringN(0, 20, -1).Draw(t, "key"), Value: rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "value")}
	})
	rapid.Check(t, func(t *rapid.T) {
		var raw []byte
		var want []Record
		offset := rapid.Int64Range(0, 1<<40).Draw(t, "offset")
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			var batch []Record
			base := offset
			for range rapid.IntRange(1, 20).Draw(t, "records") {
				batch = append(batch, Record{
					Offset: offset, Time: rapid.Int64Range(1, 4e12).Draw(t, "time"), Key: blob.Draw(t, "key"), Value: blob.Draw(t, "value"),
					Headers: rapid.SliceOfN(header, 0, 4).Draw(t, "headers"),
				})
				offset++
			}
			for i := range batch {
				if len(batch[i].Headers) == 0 {
					batch[i].Headers = nil
				}
			}
			raw = append(raw, encodeKafkaGo(t, rapid.SampledFrom(codecs).Draw(t, "codec"), base, batch)...)
			want = append(want, batch...)
		}
		got, next, err := read(answer(raw), 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := decodeKafkaGo(raw)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, theirs)
		same(t, got, want)
		if next != offset {
			t.Errorf("got next offset %d, want %d", next, offset)
		}
		if got, want := end(raw), offset; got != want {
			t.Errorf("got end %d, want %d", got, want)
		}
	})
}

func same(t interface{ Fatalf(string, ...any) }, got, want []Record) {
	if len(got) != len(want) {
		t.Fatalf("got %d records, want %d", len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("record %d: got offset %d time %d key %d value %d headers %v, want offset %d time %d key %d value %d headers %v", i,
				got[i].Offset, got[i].Time, len(got[i].Key), len(got[i].Value), got[i].Headers,
				want[i].Offset, want[i].Time, len(want[i].Key), len(want[i].Value), want[i].Headers)
		}
	}
}

func TestReaderPassesOver(t *testing.T) {
	txn := func(base, producer int64, values ...string) made {
		m := batchOf(base, values...)
		m.attrs, m.producer = transactional, producer
		return m
	}
	compacted := batchOf(10, "a", "b")
	compacted.records[1].delta, compacted.last = 4, 9
	hollow := made{base: 20, last: 4, magic: 2}
	cases := []struct {
		name    string
		batches []made
		aborted []Aborted
		from    int64
		want    string
		next    int64
	}{
		{"everything is committed", []made{batchOf(0, "a", "b"), batchOf(2, "c")}, nil, 0, "0a 1b 2c", 3},
		{"records below the start", []made{batchOf(0, "a", "b"), batchOf(2, "c", "d")}, nil, 3, "3d", 4},
		{"a committed transaction", []made{txn(0, 7, "a"), control2(1, 7, 1), batchOf(2, "b")}, nil, 0, "0a 2b", 3},
		{"an aborted transaction", []made{txn(0, 7, "a"), control2(1, 7, 0), batchOf(2, "b")}, []Aborted{{7, 0}}, 0, "2b", 3},
		{"a transaction after an aborted one of the same producer", []made{txn(0, 7, "a"), control2(1, 7, 0), txn(2, 7, "b"), control2(3, 7, 1)}, []Aborted{{7, 0}}, 0, "2b", 4},
		{"an aborted transaction among others", []made{txn(0, 7, "a"), txn(1, 8, "b"), batchOf(2, "c"), control2(3, 7, 0), txn(4, 8, "d"), control2(5, 8, 1)}, []Aborted{{7, 0}}, 0, "1b 2c 4d", 6},
		{"the aborted list out of order", []made{txn(0, 8, "a"), txn(1, 7, "b"), control2(2, 7, 0), control2(3, 8, 0)}, []Aborted{{7, 1}, {8, 0}}, 0, "", 4},
		{"an aborted transaction that began before the answer", []made{txn(5, 7, "a"), control2(6, 7, 0), batchOf(7, "b")}, []Aborted{{7, 2}}, 5, "7b", 8},
		{"offsets that compaction took", []made{compacted, batchOf(20, "c")}, nil, 10, "10a 14b 20c", 21},
		{"a batch that compaction emptied", []made{hollow, batchOf(25, "c")}, nil, 20, "25c", 26},
		{"only an emptied batch", []made{hollow}, nil, 20, "", 25},
		{"nothing", nil, nil, 3, "", 3},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var raw []byte
			for _, b := range c.batches {
				raw = append(raw, b.bytes()...)
			}
			// A broker cuts the last batch off where the answer is full.
			for name, raw := range map[string][]byte{"whole": raw, "cut": append(slices.Clone(raw), batchOf(99, "cut").bytes()[:40]...),
				"cut in its records": append(slices.Clone(raw), batchOf(99, "cut").bytes()[:headerLen+2]...)} {
				records, next, err := read(answer(raw, c.aborted...), c.from)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				got := ""
				for _, r := range records {
					got += fmt.Sprintf(" %d%s", r.Offset, r.Value)
				}
				if got != "" {
					got = got[1:]
				}
				if got != c.want || next != c.next {
					t.Errorf("%s: got %q and next %d, want %q and %d", name, got, next, c.want, c.next)
				}
			}
		})
	}
}

func TestReaderTellsTheClockOfARecord(t *testing.T) {
	m := batchOf(0, "a", "b")
	m.firstTS, m.maxTS, m.records[1].ts = 1000, 5000, 7
	for name, c := range map[string]struct {
		attrs    uint16
		times    []int64
		appended bool
	}{"the publisher's": {0, []int64{1000, 1007}, false}, "the broker's": {logAppendTime, []int64{5000, 5000}, true}} {
		m.attrs = c.attrs
		records, _, err := read(answer(m.bytes()), 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range records {
			if r.Time != c.times[i] || r.Appended != c.appended {
				t.Errorf("%s: got time %d, appended %v; want %d, %v", name, r.Time, r.Appended, c.times[i], c.appended)
			}
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	with := func(change func(*made)) []byte {
		m := batchOf(5, "a", "b")
		change(&m)
		return m.bytes()
	}
	cases := []struct {
		name string
		raw  []byte
		want error
	}{
		{"a wrong checksum", with(func(m *made) { m.wrongSum = true }), ErrCorrupt},
		{"an old message format", with(func(m *made) { m.magic = 1 }), ErrFormat},
		{"an unknown compression", with(func(m *made) { m.attrs = 5 }), ErrFormat},
		{"a length below the header's", with(func(m *made) { m.extraSize = -100 }), ErrCorrupt},
		{"more records than there are", with(func(m *made) { m.count = 3 }), ErrCorrupt},
		{"a record beyond the batch's last offset", with(func(m *made) { m.last = 0 }), ErrCorrupt},
		{"a record before the batch's first offset", with(func(m *made) { m.records[1].delta = -1; m.last = 1 }), ErrCorrupt},
		{"a record longer than the batch", with(func(m *made) { m.body = []byte{0x7e, 0, 0} }), ErrCorrupt},
		{"an empty record", with(func(m *made) { m.body = []byte{0, 0, 0} }), ErrCorrupt},
		{"a header count that lies", with(func(m *made) {
			m.body = appendRecord(nil, m.records[0])
			m.body[len(m.body)-1] = 0x7e
		}), ErrCorrupt},
		{"an offset below zero", with(func(m *made) { m.base = -1 << 62; m.last = 1 << 30 }), ErrCorrupt},
		{"gzip that is none", with(func(m *made) { m.attrs = codeGzip }), ErrCorrupt},
		{"snappy that is none", with(func(m *made) { m.attrs = codeSnappy }), ErrCorrupt},
		{"lz4 that is none", with(func(m *made) { m.attrs = codeLZ4 }), ErrCorrupt},
		{"zstd that is none", with(func(m *made) { m.attrs = codeZstd }), ErrCorrupt},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := read(answer(c.raw), 0); !errors.Is(err, c.want) {
				t.Errorf("got error %v, want %v", err, c.want)
			}
		})
	}
}

func TestReaderFindsEveryFlippedBit(t *testing.T) {
	raw := encodeKafkaGo(t, kafka.Lz4, 0, []Record{{Value: []byte("one")}, {Offset: 1, Value: []byte("two")}})
	for i := crcFrom - 4; i < len(raw); i++ {
		for bit := range 8 {
			damaged := slices.Clone(raw)
			damaged[i] ^= 1 << bit
			if _, _, err := read(answer(damaged), 0); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d, bit %d: got error %v, want %v", i, bit, err, ErrCorrupt)
			}
		}
	}
}

func TestRecordsStayValidUntilRecycle(t *testing.T) {
	var raw []byte
	for n := range int64(6) {
		raw = append(raw, encodeKafkaGo(t, codecs[int(n)%len(codecs)], n, []Record{{
			Offset: n, Value: fmt.Appendf(nil, "value %d", n), Headers: []Header{{"n", fmt.Appendf(nil, "%d", n)}},
		}})...)
	}
	var r Reader
	for round := range 3 {
		r.Reset(answer(raw), 0)
		var kept []Record
		for {
			var rec Record
			more, err := r.Next(&rec)
			if err != nil {
				t.Fatal(err)
			}
			if !more {
				break
			}
			kept = append(kept, rec)
		}
		for n, rec := range kept {
			if got, want := string(rec.Value)+string(rec.Headers[0].Value), fmt.Sprintf("value %d%d", n, n); got != want {
				t.Errorf("round %d: got %q, want %q", round, got, want)
			}
		}
		r.Recycle()
	}
}

func FuzzReader(f *testing.F) {
	for _, codec := range codecs {
		f.Add(encodeKafkaGo(f, codec, 3, []Record{{Offset: 3, Value: []byte("value"), Key: []byte("key"), Headers: []Header{{"h", []byte("v")}}}, {Offset: 4}}))
	}
	f.Add(append(control2(0, 7, 0).bytes(), batchOf(1, "a").bytes()...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		repairSums(raw)
		got, next, err := read(answer(raw, Aborted{7, 0}), 0)
		last := int64(-1)
		for _, r := range got {
			if r.Offset <= last {
				t.Fatalf("offset %d follows %d", r.Offset, last)
			}
			last = r.Offset
		}
		if next <= last {
			t.Fatalf("next offset %d is not behind %d", next, last)
		}
		if err == nil && next < end(raw) {
			t.Fatalf("read up to %d of %d without an error", next, end(raw))
		}
	})
}
