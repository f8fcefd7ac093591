package store

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/dsn"
)

// Options says which database to use and what one read may cost.
type Options struct {
	// DSN is http://, https:// or clickhouse://user:password@host:port/database.
	// Its compress parameter (lz4, zstd) also compresses inserts; without it they
	// go as they are, which costs the sender least. Required.
	DSN string
	// Authorities may sign the server's certificate. nil means the system's.
	Authorities *x509.CertPool
	// MaxQueryTime bounds one read on the server. 0 means 20 s.
	MaxQueryTime time.Duration
	// MaxQueryMemory bounds the server's memory of one read, in bytes. 0 means 1 GiB.
	MaxQueryMemory int64
	// MaxQueryRows bounds how many rows one read of a page or a count may scan.
	// 0 means 2 billion.
	MaxQueryRows int64
	// LedgerAge is how old a horizon's view of the ledger may be: measuring it
	// takes a pass over all entries. Its CompleteUntil is always fresh. 0 means
	// that each horizon measures.
	LedgerAge time.Duration
}

// Store reads and writes ClickHouse. It is safe for concurrent use.
type Store struct {
	conn    driver.Conn
	patient driver.Conn // for what answers when it is done, which may take hours
	options Options
	blocks  sender
	now     func() time.Time
	ledger  ledgerView
	native  bool // clickhouse://
}

// sender carries rows of a block to the server, in one INSERT.
type sender interface {
	send(ctx context.Context, b *block, order []uint32, settings clickhouse.Settings) error
	close() error
}

// Open connects to the database and returns an error when it does not answer.
// The error is transient unless the DSN is malformed.
func Open(ctx context.Context, options Options) (*Store, error) {
	if options.DSN == "" {
		return nil, errors.New("open store: DSN is required")
	}
	if options.MaxQueryTime < 0 || options.MaxQueryMemory < 0 || options.MaxQueryRows < 0 || options.LedgerAge < 0 {
		return nil, errors.New("open store: bounds must not be negative")
	}
	if options.MaxQueryTime == 0 {
		options.MaxQueryTime = 20 * time.Second
	}
	if options.MaxQueryMemory == 0 {
		options.MaxQueryMemory = 1 << 30
	}
	if options.MaxQueryRows == 0 {
		options.MaxQueryRows = 2_000_000_000
	}
	parsed, err := dsn.Parse(options.DSN, options.Authorities)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if parsed.Auth.Database == "" {
		parsed.Auth.Database = "default"
	}
	if parsed.MaxOpenConns == 0 {
		parsed.MaxOpenConns = 16
	}
	if parsed.MaxIdleConns == 0 {
		parsed.MaxIdleConns = 8
	}
	conn, err := clickhouse.Open(parsed)
	if err != nil {
		return nil, wrap("open store", err)
	}
	if err := conn.Ping(ctx); err != nil {
		return nil, errors.Join(wrap("open store", err), conn.Close())
	}
	slow := *parsed
	slow.ReadTimeout, slow.MaxOpenConns, slow.MaxIdleConns = 24*time.Hour, 1, 1
	patient, err := clickhouse.Open(&slow) // connects when it is used
	if err != nil {
		return nil, errors.Join(wrap("open store", err), conn.Close())
	}
	s := &Store{conn: conn, patient: patient, options: options, now: time.Now, native: parsed.Protocol == clickhouse.Native}
	if parsed.Protocol == clickhouse.HTTP {
		s.blocks = newHTTPSender(conn, parsed)
	} else {
		s.blocks = newNativeSender(parsed)
	}
	return s, nil
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return wrap("ping ClickHouse", s.conn.Ping(ctx)) }

// Close closes the connections. Calls that still run fail.
func (s *Store) Close() error {
	if err := errors.Join(s.blocks.close(), s.patient.Close(), s.conn.Close()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
