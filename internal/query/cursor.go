package query

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// cursorVersion changes when the content of cursors does.
const cursorVersion = 1

// maxCursor bounds the text of a cursor, in bytes.
const maxCursor = 16 << 10

// cursor is what the next page must know of the ones before: where they ended,
// and what page 1 fixed for all of them.
type cursor struct {
	from, to, ceiling time.Time
	after             event.Position
	withheld          json.RawMessage
}

// cursors seals and opens cursors. A cursor is encrypted, because it holds ids,
// and bound to its filter: opened for another filter, caller's tenant or role, it
// does not open.
type cursors struct{ aead cipher.AEAD }

// newCursors derives the key from a secret of at least 32 bytes, under a name
// of its own, so that the secret can have another use as well.
func newCursors(secret []byte) (*cursors, error) {
	if len(secret) < 32 {
		return nil, fmt.Errorf("derive cursor key: the secret has %d bytes, want at least 32", len(secret))
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "lethe/cursor/v1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive cursor key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cursor cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make cursor cipher: %w", err)
	}
	return &cursors{aead: aead}, nil
}

func (c *cursors) seal(filter [sha256.Size]byte, v cursor) string {
	b := []byte{cursorVersion}
	for _, t := range []time.Time{v.from, v.to, v.ceiling, v.after.OccurredAt} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
	}
	b = append(b, byte(v.after.Kind))
	for _, s := range []string{v.after.Source, v.after.ID, string(v.withheld)} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return base64.RawURLEncoding.EncodeToString(c.aead.Seal(nil, nil, b, filter[:]))
}

var errCursorShape = errors.New("the content of the cursor has another shape")

// open returns the content of a cursor that seal made for the same filter.
func (c *cursors) open(filter [sha256.Size]byte, text string) (v cursor, err error) {
	if len(text) > maxCursor {
		return v, errBadCursor
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return v, errBadCursor
	}
	b, err := c.aead.Open(nil, nil, sealed, filter[:])
	if err != nil {
		return v, errBadCursor
	}
	if v, err = decodeCursor(b); err != nil {
		return v, fmt.Errorf("%w: %w", errBadCursor, err) // sealed by another version of the program
	}
	return v, nil
}

func decodeCursor(b []byte) (v cursor, err error) {
	const times = 4
	if len(b) < 1+times*8+1 || b[0] != cursorVersion {
		return v, errCursorShape
	}
	b = b[1:]
	for _, t := range []*time.Time{&v.from, &v.to, &v.ceiling, &v.after.OccurredAt} {
		*t = time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC()
		b = b[8:]
	}
	if v.after.Kind = event.Kind(b[0]); v.after.Kind >= event.NumKinds {
		return v, errCursorShape
	}
	b = b[1:]
	var withheld string
	for _, s := range []*string{&v.after.Source, &v.after.ID, &withheld} {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) {
			return v, errCursorShape
		}
		*s = string(b[used : used+int(n)])
		b = b[used+int(n):]
	}
	if len(b) > 0 || !json.Valid([]byte(withheld)) {
		return v, errCursorShape
	}
	v.withheld = json.RawMessage(withheld)
	return v, nil
}
