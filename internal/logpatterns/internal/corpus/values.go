// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"fmt"
	"strconv"
	"strings"
)

// spellings are the ways to write a level, in the order of levels.
var spellings = map[string][]string{
	"":       {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "-"},
	"upper":  {"DEBUG", "INFO", "WARN", "ERROR", "FATAL", "-"},
	"lower":  {"debug", "info", "warn", "error", "fatal", "-"},
	"full":   {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "-"},
	"long":   {"debug", "info", "warning", "error", "critical", "-"},
	"dmesg":  {"debug ", "info  ", "warn  ", "err   ", "crit  ", "-     "},
	"short3": {"DBG", "INF", "WRN", "ERR", "FTL", "-"},
	"letter": {"D", "I", "W", "E", "F", "-"},
	"num10":  {"20", "30", "40", "50", "60", "0"},
	"syslog": {"7", "6", "4", "3", "2", "-"},
	"name5":  {"DEBUG", "INFO ", "WARN ", "ERROR", "FATAL", "-    "},
}

func address(st *state) string {
	if st.r.IntN(4) > 0 {
		return fmt.Sprintf("10.%d.%d.%d", st.r.IntN(4), st.r.IntN(32), between(st, 1, 254))
	}
	return fmt.Sprintf("%d.%d.%d.%d", between(st, 11, 220), st.r.IntN(256), st.r.IntN(256), between(st, 1, 254))
}

func path(st *state) string {
	b := skewed(st, roots, 0)
	for range between(st, 1, 4) {
		b += "/" + skewed(st, words, 11)
		if st.r.IntN(3) == 0 {
			b += strconv.Itoa(st.r.IntN(100))
		}
	}
	if st.r.IntN(2) == 0 {
		b += skewed(st, endings, 0)
	}
	return b
}

func location(st *state) string {
	b := "https://"
	if st.r.IntN(4) == 0 {
		b = "http://"
	}
	b += skewed(st, words, 90) + "." + skewed(st, domains, 0)
	for range between(st, 1, 3) {
		b += "/" + skewed(st, words, 31)
	}
	if st.r.IntN(3) == 0 {
		b += "?" + skewed(st, words, 3) + "=" + mixed(st, 6)
	}
	return b
}

func duration(st *state) string {
	switch st.r.IntN(5) {
	case 0:
		return fmt.Sprintf("%ds", between(st, 1, 120))
	case 1:
		return fmt.Sprintf("%dm%ds", between(st, 1, 59), st.r.IntN(60))
	case 2:
		return fmt.Sprintf("%.3fs", st.r.Float64()*30)
	case 3:
		return fmt.Sprintf("%.2fµs", st.r.Float64()*900)
	}
	return fmt.Sprintf("%.3fms", st.r.Float64()*900)
}

func amount(st *state) string {
	switch st.r.IntN(4) {
	case 0:
		return strconv.Itoa(between(st, 1, 100_000))
	case 1:
		return fmt.Sprintf("%d kB", between(st, 1, 9000))
	}
	return fmt.Sprintf("%.1f %s", st.r.Float64()*900, skewed(st, []string{"MiB", "KiB", "GiB"}, 0))
}

// statement is a short SQL text; statements differ in length and kind.
func statement(st *state) string {
	table := skewed(st, tables, 0)
	cond := ""
	switch st.r.IntN(4) {
	case 0:
		cond = fmt.Sprintf(" WHERE id = %d", between(st, 1, 90_000))
	case 1:
		cond = fmt.Sprintf(" WHERE %s = '%s' AND %s > %d", skewed(st, columns, 0), skewed(st, words, 17), skewed(st, columns, 4), st.r.IntN(1000))
	case 2:
		cond = fmt.Sprintf(" WHERE %s IN ($1, $2) AND deleted_at IS NULL", skewed(st, columns, 2))
	}
	switch st.r.IntN(6) {
	case 0:
		cols := columnList(st)
		return fmt.Sprintf("INSERT INTO %s (%s) VALUES ($1%s)", table, cols, strings.Repeat(", $2", strings.Count(cols, ",")))
	case 1:
		return fmt.Sprintf("UPDATE %s SET %s = '%s'%s", table, skewed(st, columns, 1), skewed(st, words, 5), cond)
	case 2:
		return "DELETE FROM " + table + cond
	case 3:
		return fmt.Sprintf("SELECT %s FROM %s t JOIN %s u ON u.id = t.%s%s LIMIT %d", columnList(st), table, skewed(st, tables, 5), skewed(st, columns, 3), cond, between(st, 1, 100))
	}
	return fmt.Sprintf("SELECT %s FROM %s%s", columnList(st), table, cond)
}

func columnList(st *state) string {
	cols := make([]string, between(st, 1, 4))
	for i := range cols {
		cols[i] = skewed(st, columns, uint64(3*i))
	}
	return strings.Join(cols, ", ")
}
