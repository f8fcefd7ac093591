package policy

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPeriodEnd(t *testing.T) {
	for _, c := range []struct{ name, from, period, want string }{
		{"month into a short one", "2026-01-31T10:00:00Z", "1m", "2026-02-28T10:00:00Z"},
		{"month into a leap February", "2028-01-31T10:00:00Z", "1m", "2028-02-29T10:00:00Z"},
		{"leap day and two years", "2024-02-29T00:00:00Z", "2y", "2026-02-28T00:00:00Z"},
		{"leap day and four years", "2024-02-29T23:59:59Z", "4y", "2028-02-29T23:59:59Z"},
		{"no leap day in 2100", "2096-02-29T00:00:00Z", "4y", "2100-02-28T00:00:00Z"},
		{"over the year", "2026-12-31T00:00:00Z", "2m", "2027-02-28T00:00:00Z"},
		{"into April", "2026-03-31T00:00:00Z", "1m", "2026-04-30T00:00:00Z"},
		{"days are 24 hours", "2026-02-27T12:00:00Z", "2d", "2026-03-01T12:00:00Z"},
		{"cut at the sentinel", "2105-12-30T12:00:00Z", "1d", "2105-12-31T00:00:00Z"},
		{"cut at the sentinel, months", "2100-01-01T00:00:00Z", "40y", "2105-12-31T00:00:00Z"},
		{"another zone", "2026-01-31T23:00:00-02:00", "1m", "2026-03-01T01:00:00Z"},
	} {
		p, err := ParsePeriod(c.period)
		if err != nil {
			t.Fatal(err)
		}
		from, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.End(from).Format(time.RFC3339); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if got := p.String(); got != c.period {
			t.Errorf("%s: String: got %s, want %s", c.name, got, c.period)
		}
	}
}

func TestParsePeriodRefuses(t *testing.T) {
	for _, s := range []string{"", "d", "1", "1w", "0d", "-1d", "+1d", "01d", "1.5y", "1 d", "41y", "481m", "14611d", "99999999999999999999d", "1D"} {
		if p, err := ParsePeriod(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, p)
		}
	}
}

// TestPeriodProperties compares with the standard library, whose months run
// over, and holds that a later start never ends earlier.
func TestPeriodProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		second := rapid.Int64Range(0, SentinelUnix)
		from := time.Unix(second.Draw(t, "from"), 0).UTC()
		later := time.Unix(rapid.Int64Range(from.Unix(), SentinelUnix).Draw(t, "later"), 0).UTC()
		p := Period{Months: rapid.IntRange(1, MaxMonths).Draw(t, "months")}
		if rapid.Bool().Draw(t, "days") {
			p = Period{Days: rapid.IntRange(1, MaxDays).Draw(t, "number")}
		}
		want := from.AddDate(0, p.Months, p.Days)
		if p.Months > 0 && want.Day() != from.Day() {
			want = want.AddDate(0, 0, -want.Day())
		}
		if want.After(Sentinel) {
			want = Sentinel
		}
		got := p.End(from)
		if !got.Equal(want) {
			t.Fatalf("%s from %v: got %v, want %v", p, from, got, want)
		}
		if p.End(later).Before(got) {
			t.Fatalf("%s: %v ends after %v", p, from, later)
		}
		long := got.Sub(from)
		day := 24 * time.Hour
		if got.Before(Sentinel) && (long < time.Duration(p.least())*day || long > time.Duration(p.most())*day) {
			t.Fatalf("%s from %v: %v is not between %d and %d days", p, from, long, p.least(), p.most())
		}
		if again, err := ParsePeriod(p.String()); err != nil || again != p {
			t.Fatalf("%s: read again: %v, %v", p, again, err)
		}
	})
}
