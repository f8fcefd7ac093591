package config

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

const hidden = "[hidden]"

// Secret is a setting that must not be seen: every way of printing it shows
// "[hidden]". Convert it with string(s) at the one place that uses it.
type Secret string

// String hides the secret from %s and %v.
func (Secret) String() string { return hidden }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return hidden }

// Format hides the secret from every other verb, such as %q and %x.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// MarshalText hides the secret from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// Bytes is a size in bytes. It is written as a whole number, or as one with a
// unit: kB, MB, GB (powers of 1000), KiB, MiB, GiB (powers of 1024).
type Bytes int64

var units = []struct {
	name string
	size Bytes
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
}

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	digits, unit := string(text), Bytes(1)
	for _, u := range units {
		if cut, ok := strings.CutSuffix(digits, u.name); ok {
			digits, unit = strings.TrimSpace(cut), u.size
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || Bytes(n) > (1<<63-1)/unit {
		return errors.New("not a size in bytes")
	}
	*b = Bytes(n) * unit
	return nil
}

// String writes the size with the largest binary unit that leaves a whole number.
func (b Bytes) String() string {
	for _, u := range []int{2, 1, 0} {
		if s := units[u]; b >= s.size && b%s.size == 0 {
			return strconv.FormatInt(int64(b/s.size), 10) + s.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
