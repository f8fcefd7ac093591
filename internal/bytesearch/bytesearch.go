// Package bytesearch looks for byte strings in the files of a ClickHouse data
// directory, through ClickHouse's compression: in parts that are active,
// inactive, detached, being written or being removed, and in any other file. It
// is how a test knows that what has expired is gone from the disk and not from
// answers alone. It asks no engine, and it is for tests and the simulation only.
package bytesearch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Report is what a search went through and what it found.
type Report struct {
	Files, Frames int
	// Bytes counts what was looked at, unpacked.
	Bytes int64
	// Found names, for each string that was found, the files it is in, in order,
	// below the directory of the search.
	Found map[string][]string
}

// tries bounds how often a search begins again because a file moved under it.
const tries = 10

var errMoved = errors.New("a file changed during the search")

// Search looks for each of the strings in every file below dir. An engine may be
// at work in dir: when a file goes or is half written the search begins again,
// because its bytes may be behind it under another name. It returns an error
// when that does not end, or when a file of columns cannot be read through.
func Search(dir string, needles ...string) (Report, error) {
	s, err := newScanner(needles)
	if err != nil {
		return Report{}, fmt.Errorf("search bytes: %w", err)
	}
	defer s.unpack.close()
	for range tries {
		s.report = Report{Found: make(map[string][]string)}
		if err = s.walk(dir); err == nil || !errors.Is(err, errMoved) {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	if err != nil {
		return Report{}, fmt.Errorf("search bytes: %w", err)
	}
	return s.report, nil
}

// scanner is one search.
type scanner struct {
	needles [][]byte
	overlap int // bytes of a frame that a string may share with the next one
	unpack  unpacker
	window  []byte
	report  Report
}

func newScanner(needles []string) (*scanner, error) {
	s := new(scanner)
	for _, n := range needles {
		if n == "" {
			return nil, errors.New("an empty string is everywhere")
		}
		s.needles = append(s.needles, []byte(n))
		s.overlap = max(s.overlap, len(n)-1)
	}
	return s, nil
}

func (s *scanner) walk(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != dir:
			return errMoved
		case err != nil:
			return err
		case !entry.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return errMoved
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return s.file(name, data)
	})
}

// file looks at a file as it is, and at what its frames hold.
func (s *scanner) file(name string, data []byte) error {
	s.report.Files++
	s.look(name, data)
	s.window = s.window[:0]
	loose := 0 // bytes that belong to no frame
	for at := 0; at < len(data); {
		size, ok := frameAt(data[at:])
		if !ok {
			at++
			loose++
			s.window = s.window[:0]
			continue
		}
		plain, err := s.unpack.frame(data[at : at+size])
		if err != nil {
			return fmt.Errorf("%s at byte %d: %w", name, at, err)
		}
		at += size
		s.report.Frames++
		// The end of the frame before goes along: a value may lie across the two.
		keep := min(len(s.window), s.overlap)
		s.window = append(append(s.window[:0], s.window[len(s.window)-keep:]...), plain...)
		s.look(name, s.window)
	}
	if loose > 0 && strings.HasSuffix(name, ".bin") {
		return fmt.Errorf("%w: %d of %d bytes of %s are in no frame", errMoved, loose, len(data), name)
	}
	return nil
}

func (s *scanner) look(name string, data []byte) {
	s.report.Bytes += int64(len(data))
	for _, n := range s.needles {
		if !bytes.Contains(data, n) {
			continue
		}
		files := s.report.Found[string(n)]
		if len(files) == 0 || files[len(files)-1] != name {
			s.report.Found[string(n)] = append(files, name)
		}
	}
}
