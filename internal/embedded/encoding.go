package embedded

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/andybalholm/brotli"
	"github.com/go-faster/city"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// decodeBody undoes a request's Content-Encoding.
func decodeBody(encoding string, body io.Reader) (io.Reader, func(), error) {
	nothing := func() {}
	switch strings.ToLower(encoding) {
	case "", "identity":
		return body, nothing, nil
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(body)
		if errors.Is(err, io.EOF) { // an empty body needs no header
			return body, nothing, nil
		}
		return r, nothing, wrapEncoding(err)
	case "deflate":
		r, err := zlib.NewReader(body)
		return r, nothing, wrapEncoding(err)
	case "br":
		return brotli.NewReader(body), nothing, nil
	case "lz4":
		return lz4.NewReader(body), nothing, nil
	case "zstd":
		r, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, nothing, wrapEncoding(err)
		}
		return r, r.Close, nil
	}
	return nil, nothing, makeException(codeNotImplemented, "NOT_IMPLEMENTED", "Unknown Content-Encoding")
}

func wrapEncoding(err error) error {
	if err == nil {
		return nil
	}
	return makeException(codeCannotDecompress, "CANNOT_DECOMPRESS", "The body is not in its Content-Encoding")
}

// chooseEncoding picks the first encoding the client accepts that the door has.
func chooseEncoding(accepted string) string {
	for name := range strings.SplitSeq(accepted, ",") {
		name, quality, _ := strings.Cut(strings.TrimSpace(name), ";")
		if strings.TrimSpace(quality) == "q=0" {
			continue
		}
		switch name = strings.ToLower(strings.TrimSpace(name)); name {
		case "gzip", "deflate", "br", "lz4", "zstd":
			return name
		}
	}
	return ""
}

// flusher is a compressor of answers.
type flusher interface {
	io.WriteCloser
	Flush() error
}

// encodeAnswer compresses an answer for its Content-Encoding.
func encodeAnswer(encoding string, w io.Writer) (flusher, error) {
	switch encoding {
	case "gzip":
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case "deflate":
		return zlib.NewWriterLevel(w, zlib.BestSpeed)
	case "br":
		return brotli.NewWriterLevel(w, brotli.BestSpeed), nil
	case "lz4":
		return lz4.NewWriter(w), nil
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	}
	return nil, fmt.Errorf("encode answer: no encoding %q", encoding)
}

// A frame of ClickHouse's own compression: 16 bytes of checksum over what follows,
// one byte of method, the size with the nine bytes of this header, the size
// unpacked, and the packed bytes.
const (
	frameChecksum = 16
	frameHeader   = 9
	frameLimit    = 1 << 30 // as on a server

	frameNone = 0x02
	frameLZ4  = 0x82
	frameZSTD = 0x90
)

// frameReader unpacks frames. Its memory is that of one frame, whose size the
// client chooses.
type frameReader struct {
	in     io.Reader
	packed bytes.Buffer
	data   []byte
	unread []byte
	zstd   *zstd.Decoder
}

func newFrameReader(in io.Reader) *frameReader { return &frameReader{in: in} }

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.unread) == 0 {
		if err := f.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.unread)
	f.unread = f.unread[n:]
	return n, nil
}

func (f *frameReader) fill() error {
	var header [frameChecksum + frameHeader]byte
	if _, err := io.ReadFull(f.in, header[:]); err != nil {
		return err // io.EOF when it ends between two frames
	}
	method := header[frameChecksum]
	packed := binary.LittleEndian.Uint32(header[frameChecksum+1:])
	size := binary.LittleEndian.Uint32(header[frameChecksum+5:])
	if packed < frameHeader || packed > frameLimit || size > frameLimit {
		return badFrame("its sizes are impossible")
	}
	// The buffer grows with what arrives, not with what the header promises.
	f.packed.Reset()
	f.packed.Write(header[frameChecksum:])
	if _, err := io.CopyN(&f.packed, f.in, int64(packed)-frameHeader); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	sum := city.CH128(f.packed.Bytes())
	if sum.Low != binary.LittleEndian.Uint64(header[:8]) || sum.High != binary.LittleEndian.Uint64(header[8:16]) {
		return badFrame("its checksum does not match")
	}
	body := f.packed.Bytes()[frameHeader:]
	if method == frameLZ4 && int64(size) > 256*int64(len(body)) { // what LZ4 can reach
		return badFrame("its sizes are impossible")
	}
	f.data = grow(f.data, int(size))
	switch method {
	case frameNone:
		if len(body) != len(f.data) {
			return badFrame("its sizes do not match")
		}
		copy(f.data, body)
	case frameLZ4:
		if n, err := lz4.UncompressBlock(body, f.data); err != nil || n != len(f.data) {
			return badFrame("it is not LZ4")
		}
	case frameZSTD:
		if f.zstd == nil {
			var err error
			if f.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)); err != nil {
				return fmt.Errorf("unpack frame: %w", err)
			}
		}
		got, err := f.zstd.DecodeAll(body, f.data[:0])
		if err != nil || len(got) != len(f.data) {
			return badFrame("it is not ZSTD")
		}
		f.data = got
	default:
		return badFrame("its method is unknown")
	}
	f.unread = f.data
	return nil
}

func (f *frameReader) close() {
	if f.zstd != nil {
		f.zstd.Close()
	}
}

func badFrame(why string) error {
	return makeException(codeCannotDecompress, "CANNOT_DECOMPRESS", "The body is not in ClickHouse's compressed frames: "+why)
}

// grow returns a slice of n bytes, the old one where it is large enough.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// frameWriter packs an answer into frames of at most 1 MiB.
type frameWriter struct {
	out    io.Writer
	packer *compress.Writer
}

const frameSize = 1 << 20

func newFrameWriter(method string, out io.Writer) *frameWriter {
	m := compress.LZ4
	switch method {
	case "ZSTD":
		m = compress.ZSTD
	case "NONE":
		m = compress.None
	}
	return &frameWriter{out: out, packer: compress.NewWriter(compress.LevelZero, m)}
}

func (f *frameWriter) Write(p []byte) (int, error) {
	for written := 0; written < len(p); {
		piece := p[written:min(written+frameSize, len(p))]
		if err := f.packer.Compress(piece); err != nil {
			return written, fmt.Errorf("pack frame: %w", err)
		}
		if _, err := f.out.Write(f.packer.Data); err != nil {
			return written, err
		}
		written += len(piece)
	}
	return len(p), nil
}

func (f *frameWriter) Flush() error { return nil }
func (f *frameWriter) Close() error { return nil }
