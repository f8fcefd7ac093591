// Package geo says which country an address belongs to, from a country file in
// MaxMind's format (GeoIP2, GeoLite2, DB-IP) that may be replaced while it runs.
//
// It knows nothing finer than a country, it parses no text and it fetches no
// file. Addresses that belong to no country never reach the file.
package geo

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/oschwald/geoip2-golang/v2"
	"github.com/oschwald/maxminddb-golang/v2"
)

// Unknown is the country of an address that is reserved or not in the file.
const Unknown = "ZZ"

// maxFile bounds the file, which is held in memory: country files are below
// 10 MB, files of cities are not.
const maxFile = 128 << 20

// DB answers from a country file. It is safe for concurrent use.
type DB struct {
	path  string
	state atomic.Pointer[state]
}

// state is one version of the file; it never changes. The file is read into
// memory, not mapped: a file that is truncated in place would kill the process
// through a mapping, and a version that is replaced needs no closing — the
// collector frees it when its last reader is done.
type state struct {
	file      version
	built     time.Time
	reader    *maxminddb.Reader
	countries map[uintptr]string // by the offset of a record in the file
}

// version tells two versions of a file apart.
type version struct {
	modified time.Time
	size     int64
}

// Open reads the file. Its errors are sentences that name GEOIP_DB.
func Open(path string) (*DB, error) {
	d := &DB{path: path}
	s, err := load(path)
	if err != nil {
		return nil, err
	}
	d.state.Store(s)
	return d, nil
}

// Country returns the ISO 3166-1 code of two letters, Unknown where there is
// none. It does not allocate.
func (d *DB) Country(a netip.Addr) string {
	a, ok := public(a)
	if !ok {
		return Unknown
	}
	s := d.state.Load()
	if s == nil {
		return Unknown
	}
	r := s.reader.Lookup(a)
	if !r.Found() {
		return Unknown
	}
	if c, ok := s.countries[r.Offset()]; ok {
		return c
	}
	return Unknown
}

// Built returns when the publisher of the file built it; zero after Close.
func (d *DB) Built() time.Time {
	if s := d.state.Load(); s != nil {
		return s.built
	}
	return time.Time{}
}

// Close releases the file. Afterwards every country is Unknown.
func (d *DB) Close() error {
	d.state.Store(nil)
	return nil
}

// load reads and checks the file at path.
func load(path string) (*state, error) {
	if path == "" {
		return nil, errors.New("GEOIP_DB is not set: it names the country file (MMDB) to use")
	}
	file, err := stat(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("GEOIP_DB names a country file that is not there: %w", err)
		}
		return nil, fmt.Errorf("GEOIP_DB names %s, which cannot be read: %w", path, err)
	}
	if file.size > maxFile {
		return nil, fmt.Errorf("GEOIP_DB names %s of %d MB, which is more than a country file has", path, file.size>>20)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("GEOIP_DB names a country file that cannot be read: %w", err)
	}
	s, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("GEOIP_DB names %s, which is not a country file that can be used: %w", path, err)
	}
	s.file = file
	return s, nil
}

func stat(path string) (version, error) {
	info, err := os.Stat(path)
	if err != nil {
		return version{}, err
	}
	if !info.Mode().IsRegular() {
		return version{}, errors.New("it is not a regular file")
	}
	return version{info.ModTime(), info.Size()}, nil
}

// parse walks through the whole file once: a damaged one is refused here and
// not at a lookup, and a lookup needs no decoding any more. Few records are
// distinct, so the table of countries is small.
func parse(raw []byte) (*state, error) {
	named, err := geoip2.OpenBytes(raw) // knows which types of file hold countries
	if err != nil {
		return nil, err
	}
	if _, err := named.Country(netip.IPv4Unspecified()); err != nil {
		return nil, err
	}
	r, err := maxminddb.OpenBytes(raw)
	if err != nil {
		return nil, err
	}
	s := &state{reader: r, built: r.Metadata.BuildTime(), countries: make(map[uintptr]string)}
	known := 0
	for n := range r.Networks() {
		if err := n.Err(); err != nil {
			return nil, err
		}
		if _, seen := s.countries[n.Offset()]; seen {
			continue
		}
		var code string
		if err := n.DecodePath(&code, "country", "iso_code"); err != nil {
			return nil, err
		}
		if !isCode(code) {
			code = Unknown
		} else {
			known++
		}
		s.countries[n.Offset()] = code
	}
	if known == 0 {
		return nil, errors.New("it names no country")
	}
	return s, nil
}

func isCode(c string) bool {
	return len(c) == 2 && 'A' <= c[0] && c[0] <= 'Z' && 'A' <= c[1] && c[1] <= 'Z'
}
