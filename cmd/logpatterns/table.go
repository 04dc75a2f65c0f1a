// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

const (
	noValue  = "-"
	ellipsis = "…"
	minWidth = 20 // of a template, however narrow the terminal
	noRoom   = "(no room for their patterns: see -max-patterns)"
)

// style is how a table is to look.
type style struct {
	color bool
	width int // columns, 0 for no limit
}

// row is a line of the table.
type row struct {
	count, share, level, template string
	worst                         logpatterns.Level
}

func printTable(out *bufio.Writer, r report, top int, s style) error {
	if _, err := fmt.Fprintln(out, heading(&r)); err != nil || r.Messages == 0 {
		return asOutput(err)
	}
	shown, left := r.topOf(top)
	rows := make([]row, 0, len(shown)+2)
	rows = append(rows, row{count: "COUNT", share: "SHARE", level: "LEVEL", template: "PATTERN"})
	for i := range shown {
		p := &shown[i]
		rows = append(rows, rowOf(&p.Levels, r.Messages, p.Template))
	}
	if r.Overflow.sum() > 0 {
		rows = append(rows, rowOf(&r.Overflow, r.Messages, noRoom))
	}
	var count, share, level int
	for i := range rows {
		count, share, level = max(count, len(rows[i].count)), max(share, len(rows[i].share)), max(level, len(rows[i].level))
	}
	room := 0
	if s.width > 0 {
		room = max(minWidth, s.width-count-share-level-6)
	}
	for i := range rows {
		c := &rows[i]
		paint, plain := "", ""
		if s.color && i > 0 && colors[c.worst] != "" {
			paint, plain = colors[c.worst], colorOff
		}
		template := cutTo(visible(c.template), room)
		if s.color && i > 0 {
			template = strings.ReplaceAll(template, hole, colorFaint+hole+colorOff)
		}
		_, err := fmt.Fprintf(out, "%*s  %*s  %s%s%s%s  %s\n", count, c.count, share, c.share,
			paint, c.level, plain, strings.Repeat(" ", level-len(c.level)), template)
		if err != nil {
			return asOutput(err)
		}
	}
	if more := len(r.Patterns) - len(shown); more > 0 {
		if _, err := fmt.Fprintf(out, "and %d more with %d messages\n", more, left); err != nil {
			return asOutput(err)
		}
	}
	return nil
}

// heading tells the totals.
func heading(r *report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", plural(r.Lines, "line"))
	if r.BlankLines > 0 {
		fmt.Fprintf(&b, " (%d blank)", r.BlankLines)
	}
	if r.CutLines > 0 {
		fmt.Fprintf(&b, " (%d cut at %d bytes)", r.CutLines, maxLine)
	}
	if r.Interrupted {
		b.WriteString(" until interrupted")
	}
	if r.Messages != r.Lines-r.BlankLines || r.Messages != r.ofRun || r.minLevel > 0 {
		fmt.Fprintf(&b, ", %s", plural(r.Messages, "message"))
		switch {
		case r.minLevel > 0:
			fmt.Fprintf(&b, " of level %s and above", r.minLevel)
		case r.Messages != r.ofRun:
			b.WriteString(" with those of the state")
		}
	}
	fmt.Fprintf(&b, ", %s", plural(uint64(len(r.Patterns)), "pattern"))
	return b.String()
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatUint(n, 10) + " " + what + "s"
}

func rowOf(c *levelCounts, all uint64, template string) row {
	n := c.sum()
	r := row{count: strconv.FormatUint(n, 10), template: template}
	if share := float64(n) / float64(all) * 100; share < 0.05 {
		r.share = "<0.1%"
	} else {
		r.share = fmt.Sprintf("%.1f%%", share)
	}
	var names []string
	for level := logpatterns.NumLevels - 1; level > 0; level-- {
		if c[level] > 0 {
			names = append(names, level.String())
			r.worst = max(r.worst, level)
		}
	}
	switch {
	case len(names) == 0:
		names = append(names, noValue)
	case c[logpatterns.LevelUnknown] > 0:
		names = append(names, logpatterns.LevelUnknown.String())
	}
	if more := len(names) - 2; more > 1 {
		names = append(names[:2], fmt.Sprintf("+%d", more))
	}
	r.level = strings.Join(names, ",")
	return r
}

const (
	hole       = "<*>"
	colorOff   = "\x1b[0m"
	colorFaint = "\x1b[2m"
)

// colors by level. Info and what has no level are as they are.
var colors = [logpatterns.NumLevels]string{
	logpatterns.LevelDebug:    colorFaint,
	logpatterns.LevelWarning:  "\x1b[33m",
	logpatterns.LevelError:    "\x1b[31m",
	logpatterns.LevelCritical: "\x1b[1;31m",
}

// visible writes bytes that a terminal would obey, or that are no text, as escapes.
func visible(s string) string {
	if strings.IndexFunc(s, isHidden) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case isHidden(r):
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}

func isHidden(r rune) bool {
	return r == utf8.RuneError || !unicode.IsGraphic(r)
}

// cutTo shortens s to a width in columns, 0 for no limit.
func cutTo(s string, width int) string {
	if width == 0 || len(s) <= width {
		return s
	}
	used, last := 0, 0 // last is where s has to be cut for the ellipsis to fit
	for i, r := range s {
		if used <= width-1 {
			last = i
		}
		if used += columns(r); used > width {
			return s[:last] + ellipsis
		}
	}
	return s
}

// columns is how wide a terminal shows a character. It knows the common scripts.
func columns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.Is(unicode.Mn, r):
		return 0
	case unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana), r >= 0x1f300 && r <= 0x1faff:
		return 2
	}
	return 1
}
