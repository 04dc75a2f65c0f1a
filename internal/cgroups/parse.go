// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
)

// The parsers here are pure and do not allocate, but for errors. All files are those of
// Documentation/admin-guide/cgroup-v2.rst and Documentation/admin-guide/cgroup-v1/. Keys that are not known are skipped,
// since each kernel adds some.

var (
	errNoNumber = errors.New("not a number")
	errTooLarge = errors.New("number out of range")
)

// legacyUnlimited is where v1 limits stop to be limits. The kernel writes the largest multiple of the page size below
// 2^63 for none, that is 1<<63 - 4096 or less with larger pages.
const legacyUnlimited = 1 << 62

// parseUint reads decimal digits and nothing else.
func parseUint(b []byte) (uint64, error) {
	if len(b) == 0 {
		return 0, errNoNumber
	}
	var v uint64
	for _, c := range b {
		d := uint64(c - '0')
		if c < '0' || c > '9' {
			return 0, errNoNumber
		}
		if v > (math.MaxUint64-d)/10 {
			return 0, errTooLarge
		}
		v = v*10 + d
	}
	return v, nil
}

// parseValue reads a file of one number.
func parseValue(b []byte) (Opt[uint64], error) {
	v, err := parseUint(bytes.TrimSpace(b))
	if err != nil {
		return Opt[uint64]{}, fmt.Errorf("%.40q: %w", b, err)
	}
	return Some(v), nil
}

// parseMax reads a file of one number or the word max, which is absent.
func parseMax(b []byte) (Opt[uint64], error) {
	if string(bytes.TrimSpace(b)) == "max" {
		return Opt[uint64]{}, nil
	}
	return parseValue(b)
}

// parseLegacyLimit reads a limit of the v1 memory controller.
func parseLegacyLimit(b []byte) (Opt[uint64], error) {
	v, err := parseValue(b)
	if v.V >= legacyUnlimited {
		return Opt[uint64]{}, err
	}
	return v, err
}

// parseCPUMax reads cpu.max, "QUOTA PERIOD" in microseconds, and returns the limit in cores.
func parseCPUMax(b []byte) (Opt[float64], error) {
	first, rest := word(b)
	if string(first) == "max" {
		return Opt[float64]{}, nil
	}
	quota, err := parseUint(first)
	if err != nil {
		return Opt[float64]{}, fmt.Errorf("quota %.40q: %w", b, err)
	}
	second, _ := word(rest)
	period, err := parseUint(second)
	if err != nil {
		return Opt[float64]{}, fmt.Errorf("period %.40q: %w", b, err)
	}
	return cores(quota, period)
}

// parseLegacyQuota reads cpu.cfs_quota_us, in which -1 means no quota and is absent.
func parseLegacyQuota(b []byte) (Opt[uint64], error) {
	b = bytes.TrimSpace(b)
	if string(b) == "-1" {
		return Opt[uint64]{}, nil
	}
	return parseValue(b)
}

// cores returns the limit that quota in each period makes.
func cores(quota, period uint64) (Opt[float64], error) {
	if period == 0 {
		return Opt[float64]{}, errors.New("period is zero")
	}
	return Some(float64(quota) / float64(period)), nil
}

// parseDuration reads a count of units. Times of more than 292 years are an error.
func parseDuration(b []byte, unit time.Duration) (Opt[time.Duration], error) {
	v, err := parseUint(b)
	if err != nil {
		return Opt[time.Duration]{}, fmt.Errorf("%.40q: %w", b, err)
	}
	if v > uint64(math.MaxInt64/unit) {
		return Opt[time.Duration]{}, fmt.Errorf("%d times %v: %w", v, unit, errTooLarge)
	}
	return Some(time.Duration(v) * unit), nil
}

// parseCPUStat reads cpu.stat of either version into c, as far as it has the keys. Without the cpu controller the file
// of v2 has no nr_ keys; that of v1 has no usage.
func parseCPUStat(b []byte, c *CPU) error {
	var err, first error
	for len(b) > 0 {
		var key, val []byte
		key, val, b = keyValue(b)
		switch string(key) {
		case "usage_usec":
			c.Usage, err = parseDuration(val, time.Microsecond)
		case "user_usec":
			c.User, err = parseDuration(val, time.Microsecond)
		case "system_usec":
			c.System, err = parseDuration(val, time.Microsecond)
		case "throttled_usec":
			c.Throttled, err = parseDuration(val, time.Microsecond)
		case "throttled_time": // v1
			c.Throttled, err = parseDuration(val, time.Nanosecond)
		case "nr_periods":
			c.Periods, err = parseValue(val)
		case "nr_throttled":
			c.ThrottledPeriods, err = parseValue(val)
		default:
			continue
		}
		first = firstOf(first, key, err)
	}
	return first
}

// parseCPUAcctStat reads cpuacct.stat, which counts in ticks of user space (USER_HZ).
func parseCPUAcctStat(b []byte, tick time.Duration, c *CPU) error {
	var err, first error
	for len(b) > 0 {
		var key, val []byte
		key, val, b = keyValue(b)
		switch string(key) {
		case "user":
			c.User, err = parseDuration(val, tick)
		case "system":
			c.System, err = parseDuration(val, tick)
		default:
			continue
		}
		first = firstOf(first, key, err)
	}
	return first
}

// parseMemoryEvents reads memory.events of v2 and memory.oom_control of v1, which has oom_kill alone.
func parseMemoryEvents(b []byte, e *MemoryEvents) error {
	var err, first error
	for len(b) > 0 {
		var key, val []byte
		key, val, b = keyValue(b)
		switch string(key) {
		case "low":
			e.Low, err = parseValue(val)
		case "high":
			e.High, err = parseValue(val)
		case "max":
			e.Max, err = parseValue(val)
		case "oom":
			e.OOM, err = parseValue(val)
		case "oom_kill":
			e.OOMKill, err = parseValue(val)
		default:
			continue
		}
		first = firstOf(first, key, err)
	}
	return first
}

// parsePopulated reads cgroup.events and tells whether the cgroup or one below it has processes.
func parsePopulated(b []byte) (bool, error) {
	for len(b) > 0 {
		var key, val []byte
		key, val, b = keyValue(b)
		if string(key) == "populated" {
			v, err := parseUint(val)
			if err != nil {
				return false, fmt.Errorf("populated %.40q: %w", val, err)
			}
			return v != 0, nil
		}
	}
	return false, errors.New("no key populated")
}

// parsePressure reads cpu.pressure, memory.pressure or io.pressure, lines of "some avg10=0.00 ... total=MICROSECONDS".
func parsePressure(b []byte) (Stall, error) {
	var s Stall
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		kind, l := word(l)
		var to *Opt[time.Duration]
		switch string(kind) {
		case "some":
			to = &s.Some
		case "full":
			to = &s.Full
		default:
			continue
		}
		for len(l) > 0 {
			var w []byte
			w, l = word(l)
			total, ok := bytes.CutPrefix(w, []byte("total="))
			if !ok {
				continue
			}
			var err error
			if *to, err = parseDuration(total, time.Microsecond); err != nil {
				return Stall{}, fmt.Errorf("%s total: %w", kind, err)
			}
		}
	}
	if !s.Some.OK && !s.Full.OK {
		return Stall{}, errors.New("no total")
	}
	return s, nil
}

// firstOf keeps the first error of a file.
func firstOf(first error, key []byte, err error) error {
	if first != nil || err == nil {
		return first
	}
	return fmt.Errorf("%s: %w", key, err)
}

// line returns the first line, without its end, and the rest.
func line(b []byte) (l, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return b, nil
	}
	return b[:i], b[i+1:]
}

// word returns the first word of b, which is one line, and the rest.
func word(b []byte) (w, rest []byte) {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	i := 0
	for i < len(b) && !isSpace(b[i]) {
		i++
	}
	return b[:i], b[i:]
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// keyValue returns the parts of the first line, which is "KEY VALUE", and the rest of the lines.
func keyValue(b []byte) (key, val, rest []byte) {
	l, rest := line(b)
	i := bytes.IndexByte(l, ' ')
	if i < 0 {
		return l, nil, rest
	}
	return l[:i], l[i+1:], rest
}
