// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "encoding/binary"

// timeEnd returns where the point in time that begins at b[i] ends, or 0 if there is none. What it finds ends at a word boundary.
//
// It knows dates with a clock, dates with a four-digit year alone, clocks with seconds or AM/PM, and UNIX times in seconds to
// nanoseconds between 2001 and 2033.
func timeEnd(b []byte, i int) int {
	if i >= len(b) {
		return 0
	}
	var end int
	if c := b[i]; digitByte(c) {
		if isDateTime(b, i) {
			return zoneEnd(b, fractionEnd(b, i+19))
		}
		end = timeFromDigits(b, i)
	} else if upperByte(c) && len(b)-i > 3 && !letterByte(b[i+3]) {
		end = timeFromName(b, i)
	}
	if end > 0 && end < len(b) && (alnumByte(b[end]) || b[end] == '_') {
		return 0
	}
	return end
}

// isDateTime says whether the 19 bytes from b[i] on are like 2026-11-21 13:04:05, the form of most loggers.
func isDateTime(b []byte, i int) bool {
	if len(b)-i < 20 || alnumByte(b[i+19]) && b[i+19]|0x20 != 'z' {
		return false
	}
	b = b[i : i+19]
	if sep := b[10]; b[4] != b[7] || b[4] != '-' && b[4] != '/' || sep != ' ' && sep != 'T' || b[13] != ':' || b[16] != ':' {
		return false
	}
	// All other bytes at once: each has 3 in its upper half, and still has it when 6 is added.
	const upper, three, six = 0xf0f0f0f0f0f0f0f0, 0x3030303030303030, 0x0606060606060606
	year := binary.LittleEndian.Uint64(b)&^0xff0000ff00000000 | 0x3000003000000000
	day := binary.LittleEndian.Uint64(b[8:])&^0x0000ff0000ff0000 | 0x0000300000300000
	clock := binary.LittleEndian.Uint64(b[11:])&^0x0000ff0000ff0000 | 0x0000300000300000
	return (year&upper^three)|((year+six)&upper^three)|(day&upper^three)|((day+six)&upper^three)|(clock&upper^three)|((clock+six)&upper^three) == 0 &&
		(b[0] == '2' && b[1] == '0' || b[0] == '1' && b[1] == '9') && (b[5] == '0' || b[5] == '1' && b[6] <= '2') && b[8] <= '3' &&
		(b[11] <= '1' || b[11] == '2' && b[12] <= '3') && b[14] <= '5' && b[17] <= '6'
}

func timeFromDigits(b []byte, i int) int {
	n := digitsAt(b, i, 20)
	j := i + n
	if j >= len(b) {
		return timeUnix(b, i, n)
	}
	sep := b[j]
	switch n {
	case 1, 2:
		switch sep {
		case ':':
			return clockEnd(b, i, false)
		case '/', '-', '.', ' ':
			return timeDayFirst(b, i, n)
		}
	case 4:
		if sep == '-' || sep == '/' || sep == '.' {
			return timeYearFirst(b, i)
		}
	case 6: // 261121 13:04:05, 261121 130405
		if sep == ' ' && numAt(b, i+2, 2) <= 12 && numAt(b, i+4, 2) <= 31 {
			if k := blanksEnd(b, j); digitsAt(b, k, 7) == 6 && clockOK(numAt(b, k, 2), numAt(b, k+2, 2), numAt(b, k+4, 2)) {
				return k + 6
			} else if end := clockEnd(b, k, true); end > 0 {
				return end
			}
		}
	case 8, 14: // 20261121T130405Z, 20261121-13:04:05:123, 20261121130405
		if yearOK(numAt(b, i, 4)) && numAt(b, i+4, 2) <= 12 && numAt(b, i+6, 2) <= 31 {
			return timeCompact(b, i, n)
		}
	}
	return timeUnix(b, i, n)
}

// timeCompact is given a date of eight digits at i.
func timeCompact(b []byte, i, n int) int {
	j := i + 8
	if n == 8 {
		switch b[j] {
		case 'T', 't', '-', '_', ' ', ':':
			j++
		default:
			return 0
		}
		if end := clockEnd(b, j, true); end > 0 {
			return end
		}
		if digitsAt(b, j, 7) != 6 {
			return 0
		}
	}
	if !clockOK(numAt(b, j, 2), numAt(b, j+2, 2), numAt(b, j+4, 2)) {
		return 0
	}
	return zoneEnd(b, fractionEnd(b, j+6))
}

// timeUnix is given n digits at i.
func timeUnix(b []byte, i, n int) int {
	switch n {
	case 10, 13, 16, 19:
		if first := b[i]; first != '1' && (first != '2' || b[i+1] != '0') {
			return 0
		}
		return fractionEnd(b, i+n)
	}
	return 0
}

// timeYearFirst is given four digits and a separator at i: 2026-11-21T13:04:05.123456+01:00 and its relatives.
func timeYearFirst(b []byte, i int) int {
	if !yearOK(numAt(b, i, 4)) {
		return 0
	}
	sep := b[i+4]
	j := i + 5
	if m := monthAt(b, j); m > 0 {
		j += m
	} else if n := digitsAt(b, j, 3); n == 0 || n > 2 || numAt(b, j, n) > 12 {
		return 0
	} else {
		j += n
	}
	if j >= len(b) || b[j] != sep {
		return 0
	}
	n := digitsAt(b, j+1, 3)
	if n == 0 || n > 2 || numAt(b, j+1, n) > 31 {
		return 0
	}
	return afterDate(b, j+1+n, true)
}

// timeDayFirst is given one or two digits and a separator at i: 21/Nov/2026:13:04:05 +0000, 17/06/09 13:04:05, 21 Nov 13:04:05,
// 11-21 13:04:05 and others.
func timeDayFirst(b []byte, i, n int) int {
	sep := b[i+n]
	j := i + n + 1
	if m := monthAt(b, j); m > 0 {
		if day := numAt(b, i, n); day == 0 || day > 31 {
			return 0
		}
		j += m
		if j < len(b) && b[j] == sep {
			if digitsAt(b, j+1, 5) == 4 && yearOK(numAt(b, j+1, 4)) {
				return afterDate(b, j+5, true)
			}
			return afterDate(b, j, false)
		}
		return 0
	}
	if sep == ' ' || numAt(b, i, n) > 31 {
		return 0
	}
	m := digitsAt(b, j, 3)
	if m == 0 || m > 2 || numAt(b, j, m) > 31 {
		return 0
	}
	j += m
	if j < len(b) && b[j] == sep {
		switch y := digitsAt(b, j+1, 5); {
		case y == 4 && yearOK(numAt(b, j+1, 4)):
			return afterDate(b, j+5, true)
		case y == 2:
			return afterDate(b, j+3, false)
		}
		return 0
	}
	if m != 2 || j >= len(b) || b[j] != ' ' {
		return 0
	}
	return afterDate(b, j, false)
}

// timeFromName reads what begins with a month or a day of the week: Nov 21 13:04:05, Sat Nov 21 13:04:05.123 2026,
// Nov 21, 2026 1:04:05 PM, Sat, 21 Nov 2026 13:04:05 GMT.
func timeFromName(b []byte, i int) int {
	if weekdayAt(b, i) {
		i += 3
		if i < len(b) && b[i] == ',' {
			i++
		}
		if i >= len(b) || b[i] != ' ' {
			return 0
		}
		i = blanksEnd(b, i)
		if n := digitsAt(b, i, 3); (n == 1 || n == 2) && i+n < len(b) && (b[i+n] == ' ' || b[i+n] == '-') {
			return timeDayFirst(b, i, n)
		}
	}
	m := monthAt(b, i)
	if m == 0 || i+m >= len(b) || b[i+m] != ' ' {
		return 0
	}
	i = blanksEnd(b, i+m)
	n := digitsAt(b, i, 3)
	if n == 0 || n > 2 || numAt(b, i, n) > 31 {
		return 0
	}
	i += n
	if i < len(b) && b[i] == ',' {
		i++
	}
	if k := blanksEnd(b, i); digitsAt(b, k, 5) == 4 && yearOK(numAt(b, k, 4)) {
		return afterDate(b, k+4, false)
	}
	end := afterDate(b, i, false)
	if end > 0 && end < len(b) && b[end] == ' ' { // the year may be last
		if k := end + 1; digitsAt(b, k, 5) == 4 && yearOK(numAt(b, k, 4)) {
			return k + 4
		}
	}
	return end
}

// afterDate looks for the clock that follows a date ending at i. Without one the date alone may do.
func afterDate(b []byte, i int, alone bool) int {
	j := i
	if j < len(b) && b[j] == ',' {
		j++
	}
	if j < len(b) {
		switch b[j] {
		case 'T', 't', '_', '-':
			j++
		case ':':
			for j < len(b) && b[j] == ':' {
				j++
			}
		case ' ':
			j = blanksEnd(b, j)
			if j+1 < len(b) && b[j] == '-' && b[j+1] == ' ' { // gin
				j += 2
			}
		}
	}
	if j > i {
		if end := clockEnd(b, j, true); end > 0 {
			return end
		}
	}
	if alone && (i == len(b) || b[i] == ' ' || b[i] == '\t' || b[i] == ']' || b[i] == ':' && i+1 < len(b) && b[i+1] == ' ') {
		return i
	}
	return 0
}

// clockEnd returns the end of a time of day with its zone. Without a date before it, seconds or AM/PM are asked for.
func clockEnd(b []byte, i int, dated bool) int {
	n := digitsAt(b, i, 3)
	if n == 0 || n > 2 || i+n+2 >= len(b) {
		return 0
	}
	sep := b[i+n]
	if sep != ':' && (sep != '.' || !dated || n != 2) || digitsAt(b, i+n+1, 3) != 2 {
		return 0
	}
	j := i + n + 3
	seconds := 0
	full := j < len(b) && b[j] == sep && digitsAt(b, j+1, 3) == 2
	if full {
		seconds = numAt(b, j+1, 2)
		j += 3
	}
	if !clockOK(numAt(b, i, n), numAt(b, i+n+1, 2), seconds) {
		return 0
	}
	if full {
		j = fractionEnd(b, j)
		if j+3 < len(b) && b[j] == ':' && digitsAt(b, j+1, 4) == 3 { // milliseconds
			j += 4
		}
	}
	if k := blanksEnd(b, j); k+1 < len(b) && (b[k]|0x20 == 'a' || b[k]|0x20 == 'p') && b[k+1]|0x20 == 'm' && (k+2 == len(b) || !alnumByte(b[k+2])) {
		full, j = true, k+2
	}
	if !full && (!dated || sep == '.') {
		return 0
	}
	return zoneEnd(b, j)
}

func clockOK(hour, minute, second int) bool { return hour < 24 && minute < 60 && second <= 60 }

func yearOK(y int) bool { return y >= 1970 && y < 2100 }

// fractionEnd skips .123456 or ,123.
func fractionEnd(b []byte, i int) int {
	if i+1 < len(b) && (b[i] == '.' || b[i] == ',') {
		if n := digitsAt(b, i+1, 10); n > 0 {
			return i + 1 + n
		}
	}
	return i
}

// zoneEnd skips Z, +01:00, +0100, " +0100", +01, " UTC" and what they have in common with other zones.
func zoneEnd(b []byte, i int) int {
	if i >= len(b) {
		return i
	}
	switch b[i] {
	case 'Z', 'z':
		return i + 1
	case '+', '-':
		return offsetEnd(b, i, true)
	case ' ':
		if i+1 >= len(b) {
			return i
		}
		switch c := b[i+1]; {
		case c == '+' || c == '-':
			if end := offsetEnd(b, i+1, false); end > i+1 {
				if zone := zoneNameEnd(b, end); zone > end {
					return zone
				}
				return end
			}
		case c >= 'A' && c <= 'Z':
			return zoneNameEnd(b, i)
		}
	}
	return i
}

// zoneNameEnd skips " UTC" and other zones that have names.
func zoneNameEnd(b []byte, i int) int {
	if i >= len(b) || b[i] != ' ' {
		return i
	}
	j := i + 1
	for j < len(b) && j-i < 6 && b[j] >= 'A' && b[j] <= 'Z' {
		j++
	}
	switch string(b[i+1 : j]) {
	case "UTC", "GMT", "Z", "CET", "CEST", "EET", "EEST", "WET", "WEST", "BST", "IST", "MSK", "JST", "KST", "SGT", "HKT", "EST", "EDT",
		"CST", "CDT", "MST", "MDT", "PST", "PDT", "AEST", "AEDT", "ACST", "AWST", "NZST", "NZDT", "SAST", "BRT", "ART", "CAT", "EAT", "WAT", "WIB", "PKT":
		if j == len(b) || !alnumByte(b[j]) {
			return j
		}
	}
	return i
}

func offsetEnd(b []byte, i int, short bool) int {
	switch n := digitsAt(b, i+1, 5); {
	case n == 4:
		return i + 5
	case n == 2 && i+3 < len(b) && b[i+3] == ':' && digitsAt(b, i+4, 3) == 2:
		return i + 6
	case n == 2 && short:
		return i + 3
	}
	return i
}

// monthAt returns the length of the name of a month at i: three letters, no more.
func monthAt(b []byte, i int) int {
	if i+3 > len(b) || i+3 < len(b) && letterByte(b[i+3]) {
		return 0
	}
	switch string(b[i : i+3]) {
	case "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec":
		return 3
	case "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC":
		return 3
	}
	return 0
}

func weekdayAt(b []byte, i int) bool {
	if i+4 > len(b) || letterByte(b[i+3]) {
		return false
	}
	switch string(b[i : i+3]) {
	case "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun":
		return true
	}
	return false
}

// digitsAt counts the digits from b[i] on, up to most.
func digitsAt(b []byte, i, most int) int {
	n := 0
	for n < most && i+n < len(b) && digitByte(b[i+n]) {
		n++
	}
	return n
}

// numAt is the number that n digits at b[i] make, which the caller has counted.
func numAt(b []byte, i, n int) int {
	v := 0
	for _, c := range b[i : i+n] {
		v = v*10 + int(c-'0')
	}
	return v
}

func blanksEnd(b []byte, i int) int {
	for i < len(b) && blankByte(b[i]) {
		i++
	}
	return i
}
