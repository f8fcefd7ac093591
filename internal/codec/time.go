package codec

import "time"

// The instants a time must lie between. Before the first, one publisher could
// open partitions without end; from the second on, ClickHouse cannot hold it.
var (
	earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// parseTime reads RFC 3339 with any offset and any number of digits of a
// second, nine of which count. A leap second is the first instant after it.
// The result is UTC.
func parseTime(s string) (time.Time, bool) {
	const form = "2006-01-02T15:04:05"
	if len(s) < len(form)+1 {
		return time.Time{}, false
	}
	for i := range len(form) {
		c, want := s[i], form[i]
		if want == 'T' {
			c &^= 0x20 // a small t is allowed
		}
		digit := '0' <= want && want <= '9'
		if digit && (c < '0' || c > '9') || !digit && c != want {
			return time.Time{}, false
		}
	}
	year, month, day := two(s)*100+two(s[2:]), two(s[5:]), two(s[8:])
	hour, minute, second := two(s[11:]), two(s[14:]), two(s[17:])
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 60 {
		return time.Time{}, false
	}
	s = s[len(form):]
	nano := 0
	if s[0] == '.' {
		i, unit := 1, 100_000_000
		for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
			nano += int(s[i]-'0') * unit
			unit /= 10
		}
		if i == 1 {
			return time.Time{}, false
		}
		s = s[i:]
	}
	offset, ok := parseOffset(s)
	if !ok {
		return time.Time{}, false
	}
	if second == 60 {
		nano = 0
	}
	return time.Date(year, time.Month(month), day, hour, minute-offset, second, nano, time.UTC), true
}

// parseOffset reads Z or ±hh:mm, in minutes.
func parseOffset(s string) (int, bool) {
	if s == "Z" || s == "z" {
		return 0, true
	}
	if len(s) != 6 || s[0] != '+' && s[0] != '-' || s[3] != ':' {
		return 0, false
	}
	for _, i := range [...]int{1, 2, 4, 5} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	hours, minutes := two(s[1:]), two(s[4:])
	if hours > 23 || minutes > 59 {
		return 0, false
	}
	if s[0] == '-' {
		return -hours*60 - minutes, true
	}
	return hours*60 + minutes, true
}

// two reads two digits.
func two(s string) int { return int(s[0]-'0')*10 + int(s[1]-'0') }

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}
