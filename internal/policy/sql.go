package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// forever is more days than lie between 1970 and the sentinel, so that the sum
// is always cut back to the sentinel.
const forever = 60000

// ExpiresExpr writes the SQL of the instant at which a row expires, a
// DateTime('UTC') made from the columns expires_override, retained_from and
// retention_class. The TTL and the column expires_at use the same text, and
// Period.End is its twin.
//
// It adds in 64 bits, because a 32-bit sum wraps round to 1970 past 2106, and
// cuts at the sentinel afterwards. A class that it does not know never expires:
// a short period would be a guess that destroys.
func ExpiresExpr(classes []StoredClass) string {
	sorted := slices.Clone(classes)
	slices.SortFunc(sorted, func(a, b StoredClass) int { return cmp.Compare(a.Key, b.Key) })
	sorted = slices.CompactFunc(sorted, func(a, b StoredClass) bool { return a.Key == b.Key })
	var months, days table
	for _, c := range sorted {
		switch {
		case c.Period.Sentinel:
			days.add(c.Key, forever)
		case c.Period.Months > 0:
			months.add(c.Key, c.Period.Months)
			days.add(c.Key, c.Period.Days)
		default:
			days.add(c.Key, c.Period.Days)
		}
	}
	return "if(expires_override > 0, toDateTime(expires_override, 'UTC'), toDateTime(least(" +
		"addDays(addMonths(toDateTime64(retained_from, 0, 'UTC'), " + months.transform(0) + "), " + days.transform(forever) + "), " +
		"toDateTime64('" + Sentinel.Format("2006-01-02 15:04:05") + "', 0, 'UTC')), 'UTC'))"
}

// table is a function from class to number.
type table struct{ keys, numbers []string }

func (t *table) add(key string, n int) {
	t.keys = append(t.keys, quote(key))
	t.numbers = append(t.numbers, "toUInt32("+strconv.Itoa(n)+")")
}

func (t *table) transform(unknown int) string {
	other := "toUInt32(" + strconv.Itoa(unknown) + ")"
	if len(t.keys) == 0 {
		return other
	}
	return "transform(retention_class, [" + strings.Join(t.keys, ", ") + "], [" + strings.Join(t.numbers, ", ") + "], " + other + ")"
}

var quoter = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

func quote(s string) string { return "'" + quoter.Replace(s) + "'" }
