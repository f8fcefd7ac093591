package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SentinelUnix is 2105-12-31 00:00:00 UTC in seconds since 1970: the expiry of
// a row that waits for its anchor, and the last instant any row can expire at.
const SentinelUnix = 4291660800

// Sentinel is SentinelUnix as a time.
var Sentinel = time.Unix(SentinelUnix, 0).UTC()

// MaxMonths and MaxDays are forty years: an event of 2065 still ends before
// the sentinel, so no promise is cut short by it in the lifetime of the store.
const (
	MaxMonths = 40 * 12
	MaxDays   = 14610
)

// Period is a length of time as policies promise it: calendar months or days of
// 24 hours, never both; or Sentinel, which ends at no known time.
type Period struct {
	Months, Days int
	Sentinel     bool
}

// ParsePeriod reads "14d", "6m" or "2y". Zero and more than forty years are errors.
func ParsePeriod(s string) (Period, error) {
	if s == "" {
		return Period{}, fmt.Errorf("no period: want a whole number and d, m or y, such as 90d")
	}
	digits, unit := s[:len(s)-1], s[len(s)-1]
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || digits[0] < '1' || digits[0] > '9' || !strings.ContainsRune("dmy", rune(unit)) {
		return Period{}, fmt.Errorf("%q is no period: want a whole number and d, m or y, such as 90d", s)
	}
	if n > MaxDays {
		return Period{}, errTooLong(s)
	}
	p := Period{Days: n}
	switch unit {
	case 'm':
		p = Period{Months: n}
	case 'y':
		p = Period{Months: 12 * n}
	}
	if p.Months > MaxMonths {
		return Period{}, errTooLong(s)
	}
	return p, nil
}

func errTooLong(s string) error {
	return fmt.Errorf("%q could end after %s: no period may be longer than %dy", s, Sentinel.Format(time.DateOnly), MaxMonths/12)
}

// String writes the period as ParsePeriod reads it, whole years as years.
func (p Period) String() string {
	switch {
	case p.Sentinel:
		return "open"
	case p.Months > 0 && p.Months%12 == 0:
		return strconv.Itoa(p.Months/12) + "y"
	case p.Months > 0:
		return strconv.Itoa(p.Months) + "m"
	}
	return strconv.Itoa(p.Days) + "d"
}

// End returns the instant at which the period that starts at from is over, in
// UTC. A month ends on the same day of a later month, or on that month's last
// day where there is no such day; nothing ends after Sentinel. It is the twin
// of the expression that ExpiresExpr generates.
func (p Period) End(from time.Time) time.Time {
	if p.Sentinel {
		return Sentinel
	}
	end := addMonths(from.UTC(), p.Months).Add(time.Duration(p.Days) * 24 * time.Hour)
	if end.After(Sentinel) {
		return Sentinel
	}
	return end
}

// addMonths clamps to the last day of the month, where time.AddDate runs over
// into the next one.
func addMonths(t time.Time, months int) time.Time {
	if months == 0 {
		return t
	}
	year, month, day := t.Date()
	n := year*12 + int(month) - 1 + months
	year, month = n/12, time.Month(n%12+1)
	if day > 28 {
		day = min(day, daysIn(year, month))
	}
	hour, minute, second := t.Clock()
	return time.Date(year, month, day, hour, minute, second, t.Nanosecond(), time.UTC)
}

func daysIn(year int, month time.Month) int {
	switch month {
	case time.April, time.June, time.September, time.November:
		return 30
	case time.February:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// least and most are the shortest and the longest the period can be, in days.
func (p Period) least() int { return p.Days + p.Months*28 + p.Months/12*29 }
func (p Period) most() int  { return p.Days + p.Months*31 }

// NotOver reports whether p can never end after q.
func (p Period) NotOver(q Period) bool {
	if p.Days == 0 && q.Days == 0 {
		return p.Months <= q.Months
	}
	return p == q || p.most() <= q.least()
}

// Unit is the width of the partitions that hold a stored class.
type Unit uint8

// The widths.
const (
	Day Unit = iota
	Month
)

// String returns "day" or "month".
func (u Unit) String() string {
	if u == Day {
		return "day"
	}
	return "month"
}

// maxDayUnit is the longest period, in days, whose partitions are days.
const maxDayUnit = 35

// Unit returns how wide the partitions of rows with this period are.
func (p Period) Unit() Unit {
	if !p.Sentinel && p.most() <= maxDayUnit {
		return Day
	}
	return Month
}

// Bucket returns the first day of the partition that holds what is retained from
// an instant for this period, in days since 1970-01-01.
func (p Period) Bucket(from time.Time) int32 { return p.Unit().bucket(from.UTC()) }

// bucket returns the first day of the partition that t falls in, in days since 1970-01-01.
func (u Unit) bucket(t time.Time) int32 {
	day := int32(t.Unix() / 86400)
	if u == Day {
		return day
	}
	return day - int32(t.Day()) + 1
}
