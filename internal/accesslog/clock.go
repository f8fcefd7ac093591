package accesslog

import "time"

// clock reads 02/Jan/2006:15:04:05 -0700, the servers' own form, without
// memory; and RFC 3339, which nginx writes as $time_iso8601.
func clock(b []byte) (time.Time, bool) {
	if len(b) != len("02/Jan/2006:15:04:05 -0700") || b[2] != '/' {
		t, err := time.Parse(time.RFC3339Nano, string(b))
		return t.UTC(), err == nil
	}
	if b[6] != '/' || b[11] != ':' || b[14] != ':' || b[17] != ':' || b[20] != ' ' {
		return time.Time{}, false
	}
	month := monthOf(b[3:6])
	day, ok1 := digits(b[0:2])
	year, ok2 := digits(b[7:11])
	hour, ok3 := digits(b[12:14])
	minute, ok4 := digits(b[15:17])
	second, ok5 := digits(b[18:20])
	zoneHours, ok6 := digits(b[22:24])
	zoneMinutes, ok7 := digits(b[24:26])
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || !ok7 || month == 0 || (b[21] != '+' && b[21] != '-') {
		return time.Time{}, false
	}
	// A minute may have 61 seconds; the last one is counted into the next minute.
	if day < 1 || hour > 23 || minute > 59 || second > 60 || zoneHours > 15 || zoneMinutes > 59 {
		return time.Time{}, false
	}
	if time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Day() != day {
		return time.Time{}, false
	}
	east := time.Duration(zoneHours)*time.Hour + time.Duration(zoneMinutes)*time.Minute
	if b[21] == '-' {
		east = -east
	}
	return time.Date(year, month, day, hour, minute, second, 0, time.UTC).Add(-east), true
}

func digits(b []byte) (n int, ok bool) {
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

func monthOf(b []byte) time.Month {
	for m := time.January; m <= time.December; m++ {
		if string(b) == m.String()[:3] {
			return m
		}
	}
	return 0
}
