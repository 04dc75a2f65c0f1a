// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

// errOutput is the error of output that could not be written: there is no use in going on.
var errOutput = errors.New("output")

func asOutput(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errOutput, err)
}

// tally counts lines.
type tally struct {
	miner   *logpatterns.Miner
	framer  logpatterns.Framer
	firsts  firsts
	content bool // lines are messages
	// each is told every line: blank ones have no message and no pattern.
	each func(line uint64, message []byte, level logpatterns.Level, p logpatterns.Pattern) error

	lines, blank, cut uint64
}

// readAll reads all inputs, one after the other. What is wrong with one of them it tells trouble, and goes on with the next; its own error
// is errOutput.
func (t *tally) readAll(ctx context.Context, o options, stdin io.Reader, out *bufio.Writer, stderr io.Writer, trouble func(error)) error {
	show := newProgress(stderr, o.online)
	defer show.clear()
	for _, name := range o.files {
		if ctx.Err() != nil {
			return nil
		}
		in, closer, size, err := open(name, stdin)
		if err != nil {
			show.clear()
			trouble(err)
			continue
		}
		src := newSource(ctx, in, func() error { return asOutput(out.Flush()) })
		err = t.read(ctx, src, func() { show.step(name, t.lines, src.size, size) })
		src.cancel()
		closer.Close()
		switch {
		case err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()):
		case errors.Is(err, errOutput):
			return err
		default:
			show.clear()
			trouble(nameError(name, err))
		}
	}
	return nil
}

// read counts the lines of one input; step is called after each.
func (t *tally) read(ctx context.Context, r io.Reader, step func()) error {
	in, err := unpack(r)
	if err != nil {
		return err
	}
	for lines := (lineReader{in: in}); ; step() {
		line, cut, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = t.add(line, cut)
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) add(line []byte, cut bool) error {
	t.lines++
	if cut {
		t.cut++
	}
	message, level := line, logpatterns.LevelUnknown
	if !t.content {
		message, level = t.framer.Frame(line)
	}
	var p logpatterns.Pattern
	if isBlank(message) {
		t.blank++
		message = nil
	} else {
		p = t.miner.Add(message, level)
		t.firsts.note(p, t.lines)
	}
	if t.each == nil {
		return nil
	}
	return t.each(t.lines, message, level, p)
}

func isBlank(b []byte) bool {
	for _, c := range b {
		if c > ' ' {
			return false
		}
	}
	return true
}

// firsts knows in which line each pattern was seen first.
type firsts struct {
	lines map[logpatterns.Pattern]uint64
	limit int // above which it looks which of them are one pattern by now
	least int
}

func newFirsts(limit int) firsts {
	return firsts{lines: map[logpatterns.Pattern]uint64{}, limit: limit, least: limit}
}

func (f *firsts) note(p logpatterns.Pattern, line uint64) {
	if p.IsOverflow() {
		return
	}
	if _, have := f.lines[p]; have {
		return
	}
	f.lines[p] = line
	if len(f.lines) > f.limit {
		f.fold()
		f.limit = max(f.least, 2*len(f.lines))
	}
}

// fold keeps one value of each pattern.
func (f *firsts) fold() {
	kept := map[string]logpatterns.Pattern{}
	for p, line := range f.lines {
		id := p.ID()
		if other, have := kept[id]; have {
			if f.lines[other] <= line {
				delete(f.lines, p)
				continue
			}
			delete(f.lines, other)
		}
		kept[id] = p
	}
}

// byID returns the lines by the identities of now.
func (f *firsts) byID() map[string]uint64 {
	f.fold()
	lines := make(map[string]uint64, len(f.lines))
	for p, line := range f.lines {
		lines[p.ID()] = line
	}
	return lines
}
