package export

import (
	"archive/zip"
	"bytes"
	"cmp"
	"compress/flate"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"iter"
	"strconv"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// partBytes bounds the compressed CSV that waits in memory while the NDJSON of
// the same rows streams; a kind with more rows continues in a next pair of files.
const partBytes = 4 << 20

// Order says what an archive is about: the head of its manifest and the facts
// its README tells.
type Order struct {
	// Keys are the subject keys that were searched. Required.
	Keys []string
	// Now is when the archive is made; UTC.
	Now time.Time
	// Horizon and Withheld are the members of the same names in the API's answers.
	Horizon, Withheld json.RawMessage
	// Notice is what the policy promises.
	Notice Notice

	partBytes int // for tests; 0: partBytes
}

// Write streams the archive of a person's rows to w: README.html, an NDJSON and
// a CSV file per kind, and manifest.json last. rows must come ordered by kind.
//
// When every row is written, finish is called with their number. Its error, or
// any other, leaves the archive without a manifest and without the directory
// that a ZIP ends with: the caller MUST then abort the transfer.
func Write(w io.Writer, o Order, rows iter.Seq2[*event.Row, error], finish func(rows uint64) error) error {
	a := &archive{
		zip:  zip.NewWriter(w),
		mask: MaskFor(o.Keys),
		at:   o.Now.UTC(),
		manifest: Manifest{
			Format: Format, CreatedAt: o.Now.UTC().Format(milliseconds), Policy: o.Notice.Policy, Version: o.Notice.Version,
			Horizon: o.Horizon, Withheld: o.Withheld, Kinds: map[string]Span{}, NotSearched: o.Notice.Stores,
			Identifiers: Identifiers{Searched: o.Keys},
		},
		seen:  newSeen(o.Keys),
		limit: cmp.Or(o.partBytes, partBytes),
	}
	if err := a.readme(o); err != nil {
		return fmt.Errorf("write export readme: %w", err)
	}
	for r, err := range rows {
		if err != nil {
			return fmt.Errorf("read rows to export: %w", err)
		}
		if err := a.row(r); err != nil {
			return fmt.Errorf("write exported row: %w", err)
		}
	}
	if err := a.endPart(); err != nil {
		return fmt.Errorf("write export file: %w", err)
	}
	if err := finish(a.manifest.Rows); err != nil {
		return fmt.Errorf("finish export: %w", err)
	}
	if err := a.end(); err != nil {
		return fmt.Errorf("write export manifest: %w", err)
	}
	return nil
}

// archive is one archive being written.
type archive struct {
	zip      *zip.Writer
	mask     Mask
	at       time.Time
	manifest Manifest
	seen     *seen
	limit    int // of a part's compressed CSV

	kind  event.Kind
	part  int // of the kind, from 1; 0: no part is open
	rows  uint64
	json  file     // streams into the archive
	table *csvFile // waits in memory
	line  []byte   // reused
	cells []string // reused
}

// file counts and digests what is written to an entry.
type file struct {
	w    io.Writer
	sum  hash.Hash
	size uint64
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.sum.Write(p[:n])
	f.size += uint64(n)
	return n, err
}

func (a *archive) header(name string) *zip.FileHeader {
	return &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: a.at}
}

func (a *archive) open(name string) (file, error) {
	w, err := a.zip.CreateHeader(a.header(name))
	return file{w: w, sum: sha256.New()}, err
}

func (a *archive) record(name string, rows, size uint64, sum []byte) {
	a.manifest.Files = append(a.manifest.Files, File{Name: name, Rows: rows, Bytes: size, SHA256: hex.EncodeToString(sum)})
}

func (a *archive) readme(o Order) error {
	f, err := a.open("README.html")
	if err != nil {
		return err
	}
	if err := writeReadme(&f, o); err != nil {
		return err
	}
	a.record("README.html", 0, f.size, f.sum.Sum(nil))
	return nil
}

func (a *archive) name(suffix string) string {
	n := a.kind.String()
	if a.part > 1 {
		n += "-" + strconv.Itoa(a.part)
	}
	return n + suffix
}

func (a *archive) row(r *event.Row) error {
	switch {
	case a.part == 0:
		if err := a.startPart(r.Kind, 1); err != nil {
			return err
		}
	case a.kind != r.Kind:
		if err := a.endPart(); err != nil {
			return err
		}
		if err := a.startPart(r.Kind, 1); err != nil {
			return err
		}
	case a.table.packed.Len() >= a.limit:
		part := a.part
		if err := a.endPart(); err != nil {
			return err
		}
		if err := a.startPart(r.Kind, part+1); err != nil {
			return err
		}
	}
	v := a.mask.view(r)
	a.line = append(v.appendJSON(a.line[:0]), '\n')
	if _, err := a.json.Write(a.line); err != nil {
		return err
	}
	a.cells = v.record(a.cells[:0])
	if err := a.table.rows.Write(a.cells); err != nil {
		return err
	}
	a.rows++
	a.manifest.count(r, v.masked)
	if a.mask.actor(r) {
		a.seen.add(r)
	}
	return nil
}

func (a *archive) startPart(k event.Kind, part int) (err error) {
	a.kind, a.part, a.rows = k, part, 0
	if a.json, err = a.open(a.name(".ndjson")); err != nil {
		return err
	}
	a.table, err = newCSVFile(header(k))
	return err
}

func (a *archive) endPart() error {
	if a.part == 0 {
		return nil
	}
	a.record(a.name(".ndjson"), a.rows, a.json.size, a.json.sum.Sum(nil))
	if err := a.table.close(); err != nil {
		return err
	}
	h := a.header(a.name(".csv"))
	h.SetModTime(a.at) //nolint:staticcheck // CreateRaw writes the date of MS-DOS alone, which only this sets
	h.CRC32 = a.table.crc.Sum32()
	h.UncompressedSize64 = a.table.plain.size
	h.CompressedSize64 = uint64(a.table.packed.Len())
	w, err := a.zip.CreateRaw(h)
	if err != nil {
		return err
	}
	if _, err := w.Write(a.table.packed.Bytes()); err != nil {
		return err
	}
	a.record(h.Name, a.rows, a.table.plain.size, a.table.plain.sum.Sum(nil))
	a.part, a.table = 0, nil
	return nil
}

func (a *archive) end() error {
	a.manifest.Identifiers.SeenNotSearched, a.manifest.Identifiers.MoreSeen = a.seen.list()
	w, err := a.zip.CreateHeader(a.header("manifest.json"))
	if err != nil {
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a.manifest); err != nil {
		return err
	}
	return a.zip.Close()
}

// csvFile is a compressed CSV in memory: a ZIP holds one file after the other,
// and the NDJSON of the same rows is being written.
type csvFile struct {
	rows    *csv.Writer
	plain   file
	deflate *flate.Writer
	crc     hash.Hash32
	packed  bytes.Buffer
}

func newCSVFile(header []string) (*csvFile, error) {
	f := &csvFile{crc: crc32.NewIEEE()}
	var err error
	if f.deflate, err = flate.NewWriter(&f.packed, flate.DefaultCompression); err != nil {
		return nil, err
	}
	f.plain = file{w: io.MultiWriter(f.deflate, f.crc), sum: sha256.New()}
	f.rows = csv.NewWriter(&f.plain)
	return f, f.rows.Write(header)
}

func (f *csvFile) close() error {
	f.rows.Flush()
	if err := f.rows.Error(); err != nil {
		return err
	}
	return f.deflate.Close()
}
