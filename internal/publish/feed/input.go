package feed

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lethe-audit/lethe/internal/codec"
)

// maxLine bounds a line; an event cannot be larger.
const maxLine = codec.MaxValue + 4096

// input reads the lines of one file.
type input struct {
	format Format

	file   *os.File // nil: standard input
	raw    *counter
	lines  *bufio.Reader
	seekTo func(int64) error

	line   []byte // without its line break; valid until the next call of next
	number int64  // of the line, from 1
	offset int64  // behind the line
	long   bool   // the line is longer than maxLine; line is empty
	err    error
}

// counter counts the bytes before decompression.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func openInput(name string, stdin io.Reader, format Format) (*input, error) {
	in := &input{format: format}
	if name == Stdin {
		if stdin == nil {
			return nil, errors.New("read standard input: there is none")
		}
		in.raw = &counter{r: stdin}
	} else {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("open input: %w", err)
		}
		in.file, in.raw = file, &counter{r: file}
	}
	in.lines = bufio.NewReaderSize(in.raw, maxLine)
	zipped, err := in.unzip()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), in.close())
	}
	if in.file != nil && !zipped {
		in.seekTo = in.seek
	} else {
		in.seekTo = in.skip
	}
	if in.format == Auto {
		in.format = in.guess(name)
	}
	return in, nil
}

// unzip recognises gzip by its first bytes, whatever the file's name.
func (in *input) unzip() (bool, error) {
	head, err := in.lines.Peek(2)
	if err != nil || head[0] != 0x1f || head[1] != 0x8b {
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		return false, nil
	}
	z, err := gzip.NewReader(in.lines)
	if err != nil {
		return false, err
	}
	in.lines = bufio.NewReaderSize(z, maxLine)
	return true, nil
}

// guess looks at the name, then at the first character.
func (in *input) guess(name string) Format {
	name = strings.TrimSuffix(strings.ToLower(name), ".gz")
	for _, ending := range []string{".ndjson", ".jsonl", ".json"} {
		if strings.HasSuffix(name, ending) {
			return Events
		}
	}
	// A pipe may bring a line and nothing more for long: only what is there is looked at.
	_, _ = in.lines.Peek(1)
	head, _ := in.lines.Peek(min(512, in.lines.Buffered())) // an error comes back with the first line
	if head = bytes.TrimLeft(head, " \t\r\n"); len(head) > 0 && head[0] == '{' {
		return Events
	}
	return AccessLog
}

// next reads the next line; false at the end and after an error. A last line
// without a line break counts.
func (in *input) next() bool {
	line, err := in.lines.ReadSlice('\n')
	in.offset += int64(len(line))
	in.long = false
	for errors.Is(err, bufio.ErrBufferFull) {
		in.long = true
		var more []byte
		more, err = in.lines.ReadSlice('\n')
		in.offset += int64(len(more))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		in.err = err
		return false
	}
	if err != nil && len(line) == 0 {
		return false
	}
	in.number++
	in.line = nil
	if !in.long {
		in.line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		in.long = len(in.line) > maxLine-2
	}
	return true
}

// waits reports whether the next line may take long to come: what a pipe has
// brought so far is published before that.
func (in *input) waits() bool { return in.file == nil && in.lines.Buffered() == 0 }

func (in *input) seek(to int64) error {
	info, err := in.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < to {
		return errChanged
	}
	if _, err := in.file.Seek(to, io.SeekStart); err != nil {
		return err
	}
	in.raw.n = to
	in.lines.Reset(in.raw)
	return nil
}

// skip reads up to the place where nothing can be skipped faster. The line that
// was read before counts.
func (in *input) skip(to int64) error {
	n, err := io.CopyN(io.Discard, in.lines, to-in.offset)
	if errors.Is(err, io.EOF) || n < to-in.offset {
		return errors.Join(errChanged, ignoreEOF(err))
	}
	return err
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (in *input) close() error {
	if in.file == nil {
		return nil
	}
	return in.file.Close()
}
