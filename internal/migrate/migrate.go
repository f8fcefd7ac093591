// Package migrate brings a ClickHouse database to the tables this program needs:
// the numbered files of schemas/clickhouse, then the expiry that the policy file
// asks for. It moves no rows and knows no event.
//
// Any number of programs may run it at the same time: every statement is safe to
// run twice, and whoever writes the expiry last looks again.
package migrate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/dsn"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/schemas"
)

// Options says which database to bring up to date, and for which policy.
type Options struct {
	// DSN is http://, https:// or clickhouse://user:password@host:port/database.
	// The database is created when it is absent. Required.
	DSN string
	// Authorities may sign the server's certificate. nil means the system's.
	Authorities *x509.CertPool
	// Policy is what the tables enforce. Required.
	Policy *policy.Policy
	// Shortens is the version of the policy where that may shorten what older policy
	// files promised to stored rows: rows past the shorter period are destroyed.
	Shortens string
}

// Apply runs the migrations that have not run and makes the policy's expiry the
// one in force. When there is nothing to do it changes nothing. It MUST have
// returned before rows of the policy's classes are inserted: a class the tables
// do not know never expires. A *Refusal says that the policy contradicts what is
// registered or shortens older promises without leave; it moved nothing.
func Apply(ctx context.Context, options Options) error {
	if options.DSN == "" || options.Policy == nil {
		return errors.New("migrate: DSN and Policy are required")
	}
	_, err := apply(ctx, options)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// apply returns how many steps it took.
func apply(ctx context.Context, options Options) (steps int, err error) {
	list, err := files(schemas.ClickHouse, "clickhouse")
	if err != nil {
		return 0, err
	}
	conn, err := connect(ctx, options)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	steps, err = migrate(ctx, conn, list)
	if err != nil {
		return steps, err
	}
	changed, err := expiry{options.Policy, options.Shortens}.apply(ctx, conn)
	return steps + changed, err
}

// Errors that waiting does not cure; errors.Is finds them.
var (
	// ErrChanged says that a migration file is not the one that ran on this database.
	ErrChanged = errors.New("a migration that ran has been changed")
	// ErrOlder says that the database was made by a newer program.
	ErrOlder = errors.New("this program is older than the database")
)

// file is one migration.
type file struct {
	number     uint32
	name       string
	checksum   string // SHA-256 of the file
	statements []string
}

var fileName = regexp.MustCompile(`^(\d{4})_([a-z0-9_]+)\.sql$`)

// files reads the migrations of a folder in their order.
func files(fsys fs.FS, folder string) ([]file, error) {
	entries, err := fs.ReadDir(fsys, folder)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	var list []file
	for _, e := range entries {
		m := fileName.FindStringSubmatch(e.Name())
		if m == nil {
			return nil, fmt.Errorf("read migrations: %s is not named NNNN_name.sql", e.Name())
		}
		text, err := fs.ReadFile(fsys, folder+"/"+e.Name())
		if err != nil {
			return nil, fmt.Errorf("read migrations: %w", err)
		}
		number, err := strconv.ParseUint(m[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read migrations: %s: %w", e.Name(), err)
		}
		sum := sha256.Sum256(text)
		list = append(list, file{uint32(number), m[2], hex.EncodeToString(sum[:]), split(string(text))})
	}
	slices.SortFunc(list, func(a, b file) int { return cmp.Compare(a.number, b.number) })
	for i, f := range list {
		if f.number != uint32(i+1) {
			return nil, fmt.Errorf("read migrations: want number %04d, got %04d_%s", i+1, f.number, f.name)
		}
	}
	return list, nil
}

// split cuts a file at the semicolons that end a line. Comments of whole lines go.
func split(text string) []string {
	var statements []string
	var b strings.Builder
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "--") {
			continue
		}
		if before, ok := strings.CutSuffix(trimmed, ";"); ok {
			b.WriteString(before)
			statements = append(statements, strings.TrimSpace(b.String()))
			b.Reset()
			continue
		}
		b.WriteString(line)
	}
	if rest := strings.TrimSpace(b.String()); rest != "" {
		statements = append(statements, rest)
	}
	return statements
}

// connect opens the database of the DSN, which it creates when it is absent.
func connect(ctx context.Context, options Options) (driver.Conn, error) {
	o, err := dsn.Parse(options.DSN, options.Authorities)
	if err != nil {
		return nil, err
	}
	o.MaxOpenConns, o.MaxIdleConns = 4, 2
	if database := o.Auth.Database; database != "" && database != "default" {
		server := *o
		server.Auth.Database = "default"
		conn, err := clickhouse.Open(&server)
		if err != nil {
			return nil, err
		}
		// An identifier cannot be a bound value; quoting makes any name safe.
		err = conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quote(database))
		if err := errors.Join(err, conn.Close()); err != nil {
			return nil, fmt.Errorf("create database: %w", err)
		}
	}
	return clickhouse.Open(o)
}

// quote writes an identifier.
func quote(name string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// migrate applies the files that have not run and returns how many did.
func migrate(ctx context.Context, conn driver.Conn, list []file) (steps int, err error) {
	done, err := applied(ctx, conn)
	if err != nil {
		return 0, fmt.Errorf("read schema_migrations: %w", err)
	}
	for number, checksums := range done {
		if int(number) > len(list) {
			return 0, fmt.Errorf("%w, which has migration %04d", ErrOlder, number)
		}
		if f := list[number-1]; !slices.Equal(checksums, []string{f.checksum}) {
			return 0, fmt.Errorf("%w: %04d_%s.sql has the checksum %s, the database has %s",
				ErrChanged, f.number, f.name, f.checksum, strings.Join(checksums, " and "))
		}
	}
	for _, f := range list {
		if _, ok := done[f.number]; ok {
			continue
		}
		for i, statement := range f.statements {
			if err := conn.Exec(ctx, statement); err != nil {
				return steps, fmt.Errorf("apply %04d_%s.sql, statement %d: %w", f.number, f.name, i+1, err)
			}
		}
		err := conn.Exec(insert(ctx), `INSERT INTO schema_migrations (number, name, checksum, applied_at)
			SELECT {number:UInt32}, {name:String}, {checksum:String}, now64(3, 'UTC')`,
			clickhouse.Named("number", strconv.Itoa(int(f.number))), clickhouse.Named("name", f.name), clickhouse.Named("checksum", f.checksum))
		if err != nil {
			return steps, fmt.Errorf("record %04d_%s.sql: %w", f.number, f.name, err)
		}
		steps++
	}
	return steps, nil
}

// insert makes an insert wait until its rows are stored, whatever the server's defaults.
func insert(ctx context.Context) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0}))
}

// applied returns the recorded checksums by number. There is more than one for
// a number only when two different programs started at once.
func applied(ctx context.Context, conn driver.Conn) (map[uint32][]string, error) {
	var tables uint64
	err := conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'schema_migrations'").Scan(&tables)
	if err != nil || tables == 0 {
		return nil, err
	}
	rows, err := conn.Query(ctx, "SELECT DISTINCT number, checksum FROM schema_migrations ORDER BY number, checksum")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	done := make(map[uint32][]string)
	for rows.Next() {
		var number uint32
		var checksum string
		if err := rows.Scan(&number, &checksum); err != nil {
			return nil, err
		}
		done[number] = append(done[number], checksum)
	}
	return done, rows.Err()
}
