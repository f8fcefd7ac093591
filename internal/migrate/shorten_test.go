package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/policy"
)

// promising is a policy with a class that counts from the event and one that counts from
// the end of an account.
func promising(t *testing.T, class, keep, account string) *policy.Policy {
	t.Helper()
	verb, period, _ := strings.Cut(account, " ")
	text := strings.NewReplacer("CLASS", class, "KEEP", keep, "VERB", verb, "PERIOD", period).Replace(`policy: small
text: {dated: 2026-01-01, sha256: "0000000000000000000000000000000000000000000000000000000000000001"}
classes:
  CLASS: {keep: KEEP, from: event, operator: class}
  account: {VERB: PERIOD, from: account.deleted, key: user, operator: account, without: {keep: 5y, operator: none}}
rules:
  - {class: account, when: {kind: audit, data.category: account}}
  - {class: CLASS, when: {kind: [request, audit, security]}}
grace: 24h
erasure: {primary: operator, everywhere: operator}
rights: {offered: [access], respond: operator, verify_identity: true}
purposes: {CLASS: a, account: b}
sentences: [{section: "1", about: one, sha256: "0000000000000000000000000000000000000000000000000000000000000002", waived: no promise}]
operator:
  class:              {value: KEEP, basis: b, owner: o, review: 2027-01-01}
  account:            {value: PERIOD, basis: b, owner: o, review: 2027-01-01}
  none:               {value: 5y, basis: b, owner: o, review: 2027-01-01}
  erasure_primary:    {value: 30d, basis: b, owner: o, review: 2027-01-01}
  erasure_everywhere: {value: 90d, basis: b, owner: o, review: 2027-01-01}
  rights_respond:     {value: 30d, basis: b, owner: o, review: 2027-01-01}
  backup_max_age:     {value: 30d, basis: b, owner: o, review: 2027-01-01}
`)
	p, err := policy.Parse("small.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// holds returns what holds of a registered class now.
func holds(t *testing.T, conn driver.Conn, key string) policy.StoredClass {
	t.Helper()
	all, err := registered(context.Background(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return byKey(all)[key]
}

func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || !r.Permanent() {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the refusal lacks %q: %v", w, err)
		}
	}
}

// TestShortening takes a promise of two years to one: not without leave, then for the
// rows that are there as well, and never back.
func TestShortening(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	put := func(p *policy.Policy, shortens string) error {
		return Apply(context.Background(), Options{DSN: dsn, Policy: p, Shortens: shortens})
	}
	long, short := promising(t, "usage", "2y", "keep 90d"), promising(t, "usage", "1y", "within 30d")
	if err := put(long, ""); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, dsn)
	for _, months := range []int{3, 18, 25} {
		exec(t, conn, fmt.Sprintf("INSERT INTO request_events (id, retention_class, bucket, occurred_at, retained_from) "+
			"SELECT '%d', 'usage@2y', toDate('2026-01-01'), now() - INTERVAL %d MONTH, now() - INTERVAL %d MONTH", months, months, months))
	}
	readable := func() string {
		return strings.Join(scalar[[]string](t, conn, "SELECT arraySort(groupArray(id)) FROM request_events WHERE expires_at > now()"), " ")
	}
	for _, shortens := range []string{"", long.Version, "yes"} {
		refused(t, put(short, shortens), "usage@2y to 1y", "account@90d-after-account.deleted to within 30d of account.deleted", "POLICY_SHORTENS="+short.Version)
		if got := readable(); got != "18 3" {
			t.Errorf("after the refusal of %q: %s is readable, want what is younger than two years", shortens, got)
		}
		if n := scalar[uint64](t, conn, "SELECT count() FROM retention_classes WHERE retention_class = 'usage@1y'"); n != 0 {
			t.Error("a refused policy has registered its classes")
		}
	}
	if err := put(short, short.Version); err != nil {
		t.Fatal(err)
	}
	if got := readable(); got != "3" {
		t.Errorf("%s is readable, want what is younger than a year", got)
	}
	exec(t, conn, "OPTIMIZE TABLE request_events FINAL")
	if got := scalar[string](t, conn, "SELECT arrayStringConcat(groupArray(id), ' ') FROM request_events"); got != "3" {
		t.Errorf("%s is stored, want what is younger than a year", got)
	}
	account := holds(t, conn, "account@90d-after-account.deleted")
	if account.After != (policy.Period{Days: 30}) || !account.Within || account.KeyedBy != "user" || account.Anchor != "account.deleted" || account.ShortenedBy != short.Version || account.ShortenedAt.IsZero() {
		t.Errorf("got %+v", account)
	}
	usage := holds(t, conn, "usage@2y")
	if usage.Promised != (policy.Period{Months: 24}) || usage.Period != (policy.Period{Months: 12}) || usage.Bucket != policy.Month {
		t.Errorf("got %+v", usage)
	}
	if account := holds(t, conn, "account/without@5y"); account.ShortenedBy != "" || account.Period != account.Promised || !account.ShortenedAt.IsZero() {
		t.Errorf("what is promised as before: got %+v", account)
	}
	// It is done: nobody is asked again.
	if err := put(short, ""); err != nil {
		t.Error(err)
	}
	// A longer promise is for new rows alone.
	if err := put(promising(t, "usage", "3y", "keep 90d"), ""); err == nil {
		t.Error("the old promise of accounts cannot come back under its key")
	} else {
		refused(t, err, "account@90d-after-account.deleted cannot be promised again", "give the class account another name")
	}
	if err := put(promising(t, "usage", "3y", "keep 60d"), ""); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]policy.Period{"usage@2y": {Months: 12}, "usage@1y": {Months: 12}, "usage@3y": {Months: 36}} {
		if got := holds(t, conn, key).Period; got != want {
			t.Errorf("%s: %s holds, want %s", key, got, want)
		}
	}
	refused(t, put(long, long.Version), "usage@2y cannot be promised again")
	if err := put(promising(t, "usage_2", "2y", "keep 60d"), ""); err != nil {
		t.Error(err)
	}
}

// TestShorteningTwice: the shortest holds, whichever came last.
func TestShorteningTwice(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	for _, keep := range []string{"5y", "372d", "1y"} { // as many days as twelve months can have, and more
		p := promising(t, "usage", keep, "keep 90d")
		if err := Apply(context.Background(), Options{DSN: dsn, Policy: p, Shortens: p.Version}); err != nil {
			t.Fatal(err)
		}
	}
	conn := dial(t, dsn)
	exec(t, conn, "OPTIMIZE TABLE retention_shortenings FINAL")
	// As a program would that had read the register before the last one wrote.
	exec(t, conn, "INSERT INTO retention_shortenings (retention_class, policy_version, months, decided_at) VALUES ('usage@5y', 'late', 24, now64(3, 'UTC') + 1)")
	for _, key := range []string{"usage@5y", "usage@372d"} {
		if got := holds(t, conn, key); got.Period != (policy.Period{Months: 12}) {
			t.Errorf("%s: %s holds, want 1y", key, got.Period)
		}
	}
}

// TestShorteningBesideOthers starts the old file and the new one at once: the
// shortening is there afterwards, whoever was last.
func TestShorteningBesideOthers(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	old, now := promising(t, "usage", "2y", "keep 90d"), promising(t, "usage", "1y", "keep 90d")
	if err := Apply(context.Background(), Options{DSN: dsn, Policy: old}); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 6)
	var group sync.WaitGroup
	for i := range errs {
		o := Options{DSN: dsn, Policy: old, Shortens: now.Version}
		if i%2 == 0 {
			o.Policy = now
		}
		group.Go(func() { errs[i] = Apply(context.Background(), o) })
	}
	group.Wait()
	for i, err := range errs {
		var r *Refusal
		if err != nil && (i%2 == 0 || !errors.As(err, &r)) {
			t.Error(err)
		}
	}
	conn := dial(t, dsn)
	if got := holds(t, conn, "usage@2y").Period; got != (policy.Period{Months: 12}) {
		t.Errorf("%s holds, want 1y", got)
	}
	if steps, err := apply(context.Background(), Options{DSN: dsn, Policy: now}); err != nil || steps != 0 {
		t.Errorf("got %d steps and %v, want the tables as the last of them left them", steps, err)
	}
}

// TestPromisesOfBefore: what an earlier program registered without its anchor is
// completed by the file that has it.
func TestPromisesOfBefore(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	p := load(t, "daestro")
	if err := Apply(context.Background(), Options{DSN: dsn, Policy: p}); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, dsn)
	exec(t, conn, "CREATE TABLE before AS retention_classes")
	exec(t, conn, "INSERT INTO before SELECT * FROM retention_classes")
	exec(t, conn, "TRUNCATE TABLE retention_classes")
	exec(t, conn, "INSERT INTO retention_classes (retention_class, months, days, sentinel) SELECT retention_class, months, days, sentinel FROM before")
	if got := holds(t, conn, "request@within-7d-of-account.deletion_requested"); got.Anchor != "" || !got.Period.Sentinel {
		t.Fatalf("the control is not as an earlier program left it: %+v", got)
	}
	for range 2 {
		if err := Apply(context.Background(), Options{DSN: dsn, Policy: p}); err != nil {
			t.Fatal(err)
		}
		for _, want := range p.Stored() {
			got := holds(t, conn, want.Key)
			if got.Anchor != want.Anchor || got.KeyedBy != want.KeyedBy || got.Period != want.Period || got.After != want.After || got.Within != want.Within ||
				got.AtLeast != want.AtLeast || got.Erasable != want.Erasable || got.From != want.From || got.Class != want.Class || got.Tier != want.Tier || got.Bucket != want.Bucket || got.Promise() != want.Promise() {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		}
	}
	if n := scalar[uint64](t, conn, "SELECT max(n) FROM (SELECT count() AS n FROM retention_classes GROUP BY retention_class)"); n > 2 {
		t.Errorf("a class was registered %d times", n)
	}
}

// TestKeyStays: what a class hangs on is not in its key, and rows hang on it.
func TestKeyStays(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	if err := Apply(context.Background(), Options{DSN: dsn, Policy: promising(t, "usage", "2y", "keep 90d")}); err != nil {
		t.Fatal(err)
	}
	exec(t, dial(t, dsn), "INSERT INTO retention_classes (retention_class, sentinel, anchor, keyed_by, after_days) VALUES ('account@90d-after-account.deleted', true, 'account.deleted', 'workspace', 90)")
	refused(t, Apply(context.Background(), Options{DSN: dsn, Policy: promising(t, "usage", "2y", "keep 90d")}), "key: workspace", "give the class account another name")
}
