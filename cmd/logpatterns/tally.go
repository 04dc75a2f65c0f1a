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

// tally counts lines, and the messages that they are.
type tally struct {
	miner   *logpatterns.Miner
	joiner  logpatterns.Joiner
	framer  logpatterns.Framer
	firsts  firsts
	content bool // lines are messages
	// each is told every message, with the pattern that it has been counted in: blank ones have no text and no pattern.
	each func(m message, p logpatterns.Pattern) error

	lines, blank, cut, messages uint64
	done                        uint64 // lines of messages that were counted, or blank
}

// message is one of a log. The text is what of it goes to the miner.
type message struct {
	text  []byte
	level logpatterns.Level
	line  uint64 // the first, counted from 1
	lines uint64 // how many
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
		flush := func() error { return asOutput(out.Flush()) }
		src := newSource(ctx, in, flush, func() error {
			if err := t.flush(); err != nil {
				return err
			}
			return flush()
		})
		err = t.read(ctx, src, func() { show.step(name, t.lines, src.size, size) })
		src.cancel()
		closer.Close()
		if !errors.Is(err, errOutput) {
			err = errors.Join(err, t.flush())
		}
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

func (t *tally) add(line []byte, cut bool) (err error) {
	if cut {
		t.cut++
	}
	if t.content {
		t.lines++
		return t.count(message{text: line})
	}
	if _, ok := t.joiner.Add(line); ok {
		err = t.countHead()
	}
	t.lines++ // it is of the next message
	return err
}

// flush counts the message that may go on.
func (t *tally) flush() error {
	if _, ok := t.joiner.Flush(); ok {
		return t.countHead()
	}
	return nil
}

// countHead counts the message that the joiner has returned, which has all lines that are not counted yet.
func (t *tally) countHead() error {
	text, level := t.framer.Frame(t.joiner.Head())
	return t.count(message{text: text, level: level})
}

func (t *tally) count(m message) error {
	m.line, m.lines = t.done+1, t.lines-t.done
	t.done = t.lines
	var p logpatterns.Pattern
	if isBlank(m.text) {
		t.blank += m.lines
		m.text = nil
	} else {
		t.messages++
		p = t.miner.Add(m.text, m.level)
		t.firsts.note(p, m.line)
	}
	if t.each == nil {
		return nil
	}
	return t.each(m, p)
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
