package bytesearch

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-faster/city"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// A frame of ClickHouse's compression: 16 bytes of checksum over what follows,
// one byte of method, the size with the nine bytes of this header, the size
// unpacked, and the packed bytes. A file of columns is nothing but frames, and
// the one file of a compact part too.
const (
	checksum = 16
	header   = 9
	limit    = 1 << 30

	none     = 0x02
	packLZ4  = 0x82
	packZSTD = 0x90
	chain    = 0x91 // several methods, one on top of the other
	delta    = 0x92
	t64      = 0x93

	lastMethod = 0x9f // and more than there are
)

// frameAt returns the length of the frame that data begins with, if it does: its
// checksum tells it from any other bytes.
func frameAt(data []byte) (size int, ok bool) {
	if len(data) < checksum+header {
		return 0, false
	}
	if m := data[checksum]; m != none && (m < packLZ4 || m > lastMethod) { // saves most checksums
		return 0, false
	}
	packed := binary.LittleEndian.Uint32(data[checksum+1:])
	if packed < header || packed > limit || int(packed) > len(data)-checksum {
		return 0, false
	}
	size = checksum + int(packed)
	sum := city.CH128(data[checksum:size])
	ok = sum.Low == binary.LittleEndian.Uint64(data) && sum.High == binary.LittleEndian.Uint64(data[8:])
	return size, ok
}

// unpacker undoes the compression of frames. Its zero value is ready.
type unpacker struct {
	zstd *zstd.Decoder
	data []byte
}

// frame returns what a frame holds; the bytes are good until the next call. Of
// numbers that were transformed it returns the transformed ones: no text is
// stored that way.
func (u *unpacker) frame(frame []byte) ([]byte, error) {
	method := frame[checksum]
	size := binary.LittleEndian.Uint32(frame[checksum+5:])
	body := frame[checksum+header:]
	if size > limit {
		return nil, errors.New("the size of a frame is impossible")
	}
	if method == chain {
		// The number of methods, the methods, then a frame of the last without a checksum.
		if len(body) < 1 || len(body) < 1+int(body[0])+header {
			return nil, errors.New("a chain of methods is cut short")
		}
		inner := body[1+int(body[0]):]
		method, size, body = inner[0], binary.LittleEndian.Uint32(inner[5:]), inner[header:]
	}
	switch method {
	case none, delta, t64:
		return body, nil
	case packLZ4:
		if cap(u.data) < int(size) {
			u.data = make([]byte, size)
		}
		n, err := lz4.UncompressBlock(body, u.data[:size])
		if err != nil {
			return nil, fmt.Errorf("unpack LZ4: %w", err)
		}
		return u.data[:n], nil
	case packZSTD:
		if u.zstd == nil {
			var err error
			if u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)); err != nil {
				return nil, fmt.Errorf("unpack ZSTD: %w", err)
			}
		}
		plain, err := u.zstd.DecodeAll(body, u.data[:0])
		if err != nil {
			return nil, fmt.Errorf("unpack ZSTD: %w", err)
		}
		u.data = plain
		return plain, nil
	}
	return nil, fmt.Errorf("the method 0x%02x of a frame is not known", method)
}

func (u *unpacker) close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}
