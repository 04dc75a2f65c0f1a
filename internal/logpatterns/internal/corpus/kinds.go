// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// state is what a line is drawn from.
type state struct {
	r       *rand.Rand
	now     time.Time // grows from line to line
	pids    []int
	level   string
	written string
	content string // for {msg}
}

var rangeArg = regexp.MustCompile(`^(-?\d+)-(-?\d+)$`)

// drawer returns what draws the values of {kind:arg}. The place is a number that differs between the variables
// of a corpus and is the same in each run.
func (src *source) drawer(kind, arg string, hasArg bool, place uint64) (func(*state) string, error) {
	if values, ok := src.vocabs[kind]; ok && !hasArg {
		return func(st *state) string { return skewed(st, values, 0) }, nil
	}
	if pool, ok := pools[kind]; ok && !hasArg {
		return func(st *state) string { return skewed(st, pool, place) }, nil
	}
	if draw, ok := plain[kind]; ok && !hasArg {
		return draw, nil
	}
	switch kind {
	case "int", "float":
		return number(kind, arg, hasArg)
	case "hex":
		return hex(arg, hasArg)
	case "id":
		n := 6 + int(place%15)
		return func(st *state) string { return mixed(st, n) }, nil
	case "json":
		return func(st *state) string { return object(st, place) }, nil
	case "time", "ts", "date":
		return moment(kind, arg, hasArg)
	case "level":
		names, ok := spellings[arg]
		if !ok {
			return nil, fmt.Errorf("level %q: unknown spelling", arg)
		}
		return func(st *state) string { return spell(st, names) }, nil
	case "msg":
		if src.system.Frame == frameJSON {
			return quoteJSON, nil
		}
		return quoteLogfmt, nil
	case "opt":
		return func(st *state) string { return strings.Repeat(arg, st.r.IntN(2)) }, nil
	case "list":
		return src.list(arg, place)
	}
	if hasArg {
		kind += ":" + arg
	}
	return nil, fmt.Errorf("unknown variable {%s}", kind)
}

// list reads KIND:LO-HI[:SEP]; a KIND may have its own argument, as in int:1-9:2-4.
func (src *source) list(arg string, place uint64) (func(*state) string, error) {
	kind, rest, _ := strings.Cut(arg, ":")
	count, sep, hasSep := strings.Cut(rest, ":")
	kindArg, hasKindArg := "", false
	if next, after, more := strings.Cut(sep, ":"); rangeArg.MatchString(next) {
		kindArg, hasKindArg = count, true
		count, sep, hasSep = next, after, more
	}
	m := rangeArg.FindStringSubmatch(count)
	if m == nil {
		return nil, fmt.Errorf("list %q: want KIND:LO-HI or KIND:LO-HI:SEPARATOR", arg)
	}
	lo, hi, err := bounds(m)
	if err != nil {
		return nil, err
	}
	if !hasSep {
		sep = ", "
	}
	draw, err := src.drawer(kind, kindArg, hasKindArg, place)
	if err != nil {
		return nil, err
	}
	return func(st *state) string {
		values := make([]string, between(st, lo, hi))
		for i := range values {
			values[i] = draw(st)
		}
		return strings.Join(values, sep)
	}, nil
}

func bounds(m []string) (lo, hi int, err error) {
	lo, err1 := strconv.Atoi(m[1])
	hi, err2 := strconv.Atoi(m[2])
	if err1 != nil || err2 != nil || lo > hi {
		return 0, 0, fmt.Errorf("range %q: want LO-HI", m[0])
	}
	return lo, hi, nil
}

func between(st *state, lo, hi int) int { return lo + st.r.IntN(hi-lo+1) }

// skewed draws a value; those at the begin are the more frequent, counted from the place on.
func skewed(st *state, values []string, place uint64) string {
	at := int(float64(len(values)) * math.Pow(st.r.Float64(), 1.5))
	return values[(uint64(at)+place)%uint64(len(values))]
}

func number(kind, arg string, hasArg bool) (func(*state) string, error) {
	lo, hi := 0, 0
	if hasArg {
		m := rangeArg.FindStringSubmatch(arg)
		if m == nil {
			return nil, fmt.Errorf("%s:%s: want LO-HI", kind, arg)
		}
		var err error
		if lo, hi, err = bounds(m); err != nil {
			return nil, err
		}
	}
	return func(st *state) string {
		switch {
		case kind == "float" && hasArg:
			return strconv.FormatFloat(float64(lo)+st.r.Float64()*float64(hi-lo), 'f', between(st, 1, 3), 64)
		case kind == "float":
			return strconv.FormatFloat(math.Exp(st.r.Float64()*7), 'f', between(st, 1, 4), 64)
		case hasArg:
			return strconv.Itoa(between(st, lo, hi))
		}
		return strconv.Itoa(int(math.Exp(st.r.Float64() * 11))) // as many of one digit as of five
	}, nil
}

func hex(arg string, hasArg bool) (func(*state) string, error) {
	if !hasArg {
		return func(st *state) string { return letters(st, "0123456789abcdef", 8+4*st.r.IntN(3)) }, nil
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 || n > 128 {
		return nil, fmt.Errorf("hex:%s: want a number of digits", arg)
	}
	return func(st *state) string { return letters(st, "0123456789abcdef", n) }, nil
}

func letters(st *state, alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[st.r.IntN(len(alphabet))]
	}
	return string(b)
}

// mixed is an identifier with at least one letter and one digit.
func mixed(st *state, n int) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	b := []byte(letters(st, alphabet, n))
	at := st.r.IntN(n)
	b[at] = alphabet[st.r.IntN(20)]
	b[(at+1)%n] = alphabet[20+st.r.IntN(7)]
	return string(b)
}

func moment(kind, arg string, hasArg bool) (func(*state) string, error) {
	layout := arg
	switch {
	case kind == "time" && !hasArg:
		return nil, errors.New("{time} without a layout")
	case kind == "time":
		return func(st *state) string { return st.now.Format(layout) }, nil
	case kind == "ts" && !hasArg:
		layout = "2006-01-02T15:04:05Z"
	case kind == "date" && !hasArg:
		layout = "2006-01-02"
	}
	return func(st *state) string {
		return st.now.Add(-time.Duration(st.r.Int64N(int64(40 * 24 * time.Hour)))).Format(layout)
	}, nil
}

func spell(st *state, names []string) string {
	if st.written != "" {
		return st.written
	}
	for i, l := range levels {
		if l == st.level {
			return names[i]
		}
	}
	return st.level
}

func quoteJSON(st *state) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(st.content); err != nil {
		return `""` // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func quoteLogfmt(st *state) string {
	if strings.ContainsAny(st.content, " =\"\t\\") || st.content == "" {
		return strconv.Quote(st.content)
	}
	return st.content
}

// object is a small JSON object whose keys are those of the place.
func object(st *state, place uint64) string {
	keys := []string{"id", "name", "count", "state", "attempt", "ok", "region", "kind"}
	var b strings.Builder
	for i := range 2 + int(place%3) {
		b.WriteByte("{,"[min(i, 1)])
		key := keys[(place/3+uint64(3*i))%uint64(len(keys))]
		b.WriteString(strconv.Quote(key) + ":")
		switch key {
		case "count", "attempt":
			b.WriteString(strconv.Itoa(st.r.IntN(500)))
		case "ok":
			b.WriteString(strconv.FormatBool(st.r.IntN(3) > 0))
		case "id":
			b.WriteString(strconv.Quote(mixed(st, 8)))
		default:
			b.WriteString(strconv.Quote(skewed(st, words, place)))
		}
	}
	return b.String() + "}"
}

// plain are the kinds without an argument that are not drawn from a pool.
var plain = map[string]func(*state) string{
	"uuid": func(st *state) string {
		h := letters(st, "0123456789abcdef", 32)
		return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
	},
	"ip": address,
	"ip6": func(st *state) string {
		return fmt.Sprintf("2001:db8:%x:%x::%x", st.r.IntN(0x10000), st.r.IntN(16), 1+st.r.IntN(0xffff))
	},
	"ipport": func(st *state) string { return address(st) + ":" + strconv.Itoa(between(st, 1024, 65_000)) },
	"port":   func(st *state) string { return strconv.Itoa(between(st, 1024, 65_000)) },
	"mac": func(st *state) string {
		h := letters(st, "0123456789abcdef", 10)
		return "02:" + h[:2] + ":" + h[2:4] + ":" + h[4:6] + ":" + h[6:8] + ":" + h[8:]
	},
	"path":  path,
	"file":  func(st *state) string { return skewed(st, words, 50) + skewed(st, endings, 0) },
	"url":   location,
	"email": func(st *state) string { return skewed(st, pools["user"], 7) + "@" + skewed(st, domains, 0) },
	"dur":   duration,
	"size":  amount,
	"b64": func(st *state) string {
		b := make([]byte, between(st, 10, 32))
		for i := range b {
			b[i] = byte(st.r.Uint32())
		}
		return base64.StdEncoding.EncodeToString(b)
	},
	"version": func(st *state) string {
		return fmt.Sprintf("%d.%d.%d", st.r.IntN(9), st.r.IntN(30), st.r.IntN(12))
	},
	"percent": func(st *state) string {
		if st.r.IntN(2) == 0 {
			return strconv.Itoa(st.r.IntN(101)) + "%"
		}
		return fmt.Sprintf("%.1f%%", st.r.Float64()*100)
	},
	"pid":    func(st *state) string { return strconv.Itoa(st.pids[st.r.IntN(len(st.pids))]) },
	"bool":   func(st *state) string { return strconv.FormatBool(st.r.IntN(2) == 0) },
	"sql":    statement,
	"unix":   func(st *state) string { return strconv.FormatInt(st.now.Unix(), 10) },
	"unixms": func(st *state) string { return strconv.FormatInt(st.now.UnixMilli(), 10) },
	"unixf":  func(st *state) string { return fmt.Sprintf("%.3f", float64(st.now.UnixMilli())/1000) },
}
