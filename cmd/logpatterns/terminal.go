// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// styleOf tells how a table on stdout is to look.
func styleOf(stdout io.Writer, o options) style {
	width, isTerminal := widthOf(stdout)
	s := style{color: o.color == "always"}
	if o.color == "auto" {
		s.color = isTerminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	if !o.wide {
		s.width = width
	}
	return s
}

// widthOf returns the columns of a terminal, 0 if it does not tell, and whether it is one.
func widthOf(w io.Writer) (width int, isTerminal bool) {
	file, ok := w.(*os.File)
	if !ok {
		return 0, false
	}
	return terminalWidth(file)
}

const (
	// progressAfter is how long it has to take before progress is shown, progressEvery how often it is then.
	progressAfter, progressEvery = time.Second, 250 * time.Millisecond
	// progressLines is how many lines are read between two looks at the clock.
	progressLines = 512
)

// progress shows on a terminal how far reading has come.
type progress struct {
	out   io.Writer // nil to show nothing
	next  time.Time
	shown bool
}

// newProgress shows nothing if stderr is no terminal, or if there is output while input is read.
func newProgress(stderr io.Writer, online bool) *progress {
	if _, isTerminal := widthOf(stderr); !isTerminal || online {
		return &progress{}
	}
	return &progress{out: stderr, next: time.Now().Add(progressAfter)}
}

// step is called for each line with the bytes that were read of an input, and how many it has, 0 for unknown.
func (p *progress) step(name string, lines, read, size uint64) {
	if p.out == nil || lines%progressLines != 0 || time.Now().Before(p.next) {
		return
	}
	p.next = time.Now().Add(progressEvery)
	p.shown = true
	of := ""
	if size > 0 {
		of = fmt.Sprintf(" (%d%%)", min(100, read*100/size))
	}
	width, _ := widthOf(p.out)
	text := fmt.Sprintf("%d lines, %s: %d MiB%s", lines, visible(name), read>>20, of)
	fmt.Fprintf(p.out, "\r\x1b[K%s", cutTo(text, width))
}

// clear removes what was shown.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}
