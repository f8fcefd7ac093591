package migrate

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/policy"
)

// Refusal says why a policy file is not put in force. Nothing was changed for it,
// and waiting does not cure it.
type Refusal struct{ text string }

// Error says what is wrong and how to go on.
func (r *Refusal) Error() string { return r.text }

// Permanent says that trying again gives the same answer.
func (r *Refusal) Permanent() bool { return true }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// check refuses a policy whose classes are registered with another promise, and one
// that shortens older promises without leave.
func (x expiry) check(all []policy.StoredClass) error {
	known := byKey(all)
	for _, c := range x.policy.Stored() {
		old, ok := known[c.Key]
		if !ok {
			continue
		}
		class := "give the class " + c.Class + " another name in the policy file"
		switch {
		case old.Promised != c.Promised:
			return refuse("%s is registered with another period; a class's period is part of its key and cannot change", c.Key)
		case old.ShortenedBy != "":
			return refuse("%s cannot be promised again: policy %s has shortened it to %s, and rows stored under it now would go as early; %s",
				c.Key, old.ShortenedBy, old.Promise(), class)
		case old.KeyedBy != "" && old.KeyedBy != c.KeyedBy:
			return refuse("%s is registered with key: %s, and the rows stored under it hang on that; to hang new ones on the %s, %s",
				c.Key, old.KeyedBy, c.KeyedBy, class)
		}
	}
	shortenings := x.policy.Shortenings(all)
	if len(shortenings) == 0 || x.shortens == x.policy.Version {
		return nil
	}
	list := make([]string, len(shortenings))
	for i, s := range shortenings {
		list[i] = s.String()
	}
	return refuse("policy %s shortens what was promised to stored rows: %s. Rows past the shorter period would be destroyed for good. "+
		"ingest policy diff OLD NEW counts them; to go on, set POLICY_SHORTENS=%s",
		x.policy.Version, strings.Join(list, "; "), x.policy.Version)
}

// register records the classes of the policy that are not there yet or are treated
// otherwise now, and what it shortens.
func (x expiry) register(ctx context.Context, conn driver.Conn, all []policy.StoredClass) error {
	known := byKey(all)
	for _, c := range x.policy.Stored() {
		old, ok := known[c.Key]
		if ok && old.Anchor == c.Anchor && old.Erasable == c.Erasable && old.Reason == c.Reason && old.Downgrade == c.Downgrade {
			continue
		}
		err := conn.Exec(insert(ctx), `INSERT INTO retention_classes (retention_class, months, days, sentinel, anchor, keyed_by, after_months, after_days,
				within, least_months, least_days, erasable, reason, downgrade, policy_version, registered_at)
			SELECT {key:String}, {months:UInt32}, {days:UInt32}, {sentinel:Bool}, {anchor:String}, {keyed:String}, {after_months:UInt32}, {after_days:UInt32},
				{within:Bool}, {least_months:UInt32}, {least_days:UInt32}, {erasable:Bool}, {reason:String}, {downgrade:String}, {version:String}, now64(3, 'UTC')`,
			append(x.promise(c), clickhouse.Named("sentinel", strconv.FormatBool(c.Period.Sentinel)),
				clickhouse.Named("anchor", c.Anchor), clickhouse.Named("keyed", c.KeyedBy), clickhouse.Named("erasable", strconv.FormatBool(c.Erasable)),
				clickhouse.Named("reason", c.Reason), clickhouse.Named("downgrade", c.Downgrade))...)
		if err != nil {
			return err
		}
	}
	for _, s := range x.policy.Shortenings(all) {
		err := conn.Exec(insert(ctx), `INSERT INTO retention_shortenings (retention_class, policy_version, months, days, after_months, after_days,
				within, least_months, least_days, decided_at)
			SELECT {key:String}, {version:String}, {months:UInt32}, {days:UInt32}, {after_months:UInt32}, {after_days:UInt32},
				{within:Bool}, {least_months:UInt32}, {least_days:UInt32}, now64(3, 'UTC')`, x.promise(s.New)...)
		if err != nil {
			return err
		}
	}
	return nil
}

// promise binds the key and the promise of a class, and who registers it.
func (x expiry) promise(c policy.StoredClass) []any {
	number := func(name string, n int) any { return clickhouse.Named(name, strconv.Itoa(n)) }
	return []any{
		clickhouse.Named("key", c.Key), clickhouse.Named("version", x.policy.Version), number("months", c.Period.Months), number("days", c.Period.Days),
		number("after_months", c.After.Months), number("after_days", c.After.Days), clickhouse.Named("within", strconv.FormatBool(c.Within)),
		number("least_months", c.AtLeast.Months), number("least_days", c.AtLeast.Days),
	}
}

func byKey(all []policy.StoredClass) map[string]policy.StoredClass {
	known := make(map[string]policy.StoredClass, len(all))
	for _, c := range all {
		known[c.Key] = c
	}
	return known
}

// registered returns every class that any policy has produced, with what holds of it
// now, in order of key.
func registered(ctx context.Context, conn driver.Conn) ([]policy.StoredClass, error) {
	rows, err := conn.Query(ctx, `SELECT retention_class, promises, promised_months, promised_days, sentinel, months, days, anchor, keyed_by,
			after_months, after_days, within, least_months, least_days, erasable, reason, downgrade, shortened_by, shortened_at
		FROM retention_promises ORDER BY retention_class`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []policy.StoredClass
	for rows.Next() {
		var c policy.StoredClass
		var promises uint64
		var own, period, after, least [2]uint32
		if err := rows.Scan(&c.Key, &promises, &own[0], &own[1], &c.Period.Sentinel, &period[0], &period[1], &c.Anchor, &c.KeyedBy,
			&after[0], &after[1], &c.Within, &least[0], &least[1], &c.Erasable, &c.Reason, &c.Downgrade, &c.ShortenedBy, &c.ShortenedAt); err != nil {
			return nil, err
		}
		if promises != 1 {
			return nil, fmt.Errorf("%s has %d periods", c.Key, promises)
		}
		length := func(n [2]uint32) policy.Period { return policy.Period{Months: int(n[0]), Days: int(n[1])} }
		c.Promised, c.After, c.AtLeast = length(own), length(after), length(least)
		c.Promised.Sentinel = c.Period.Sentinel
		c.Period.Months, c.Period.Days = int(period[0]), int(period[1])
		all = append(all, policy.Registered(c))
	}
	return all, rows.Err()
}
