// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

const (
	// stdinName is how the standard input is called on the command line.
	stdinName = "-"
	// maxLine is how many bytes of a line are looked at.
	maxLine = 1 << 20
	// blockSize is how much is read at once.
	blockSize = 128 << 10
	// silence is how long a message waits for more lines of it, as in the collector.
	silence = time.Second
)

// source reads in a goroutine of its own, so that a read that blocks does not hold up the end of ctx. The goroutine
// ends with the read: of a terminal or a pipe that may be later than close.
type source struct {
	ctx    context.Context
	cancel context.CancelFunc
	blocks chan block
	free   chan []byte
	held   []byte // the block that is being read
	rest   []byte // of it
	err    error
	size   uint64       // bytes read so far
	idle   func() error // before waiting
	silent func() error // when it has waited for a silence
}

type block struct {
	data []byte
	err  error
}

func newSource(ctx context.Context, r io.Reader, idle, silent func() error) *source {
	ctx, cancel := context.WithCancel(ctx)
	s := &source{ctx: ctx, cancel: cancel, blocks: make(chan block), free: make(chan []byte, 2), idle: idle, silent: silent}
	for range cap(s.free) {
		s.free <- make([]byte, blockSize)
	}
	go s.fetch(r)
	return s
}

func (s *source) fetch(r io.Reader) {
	for {
		var buf []byte
		select {
		case buf = <-s.free:
		case <-s.ctx.Done():
			return
		}
		n, err := r.Read(buf)
		select {
		case s.blocks <- block{buf[:n], err}:
		case <-s.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// Read implements io.Reader. Errors stay.
func (s *source) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err == nil {
			s.err = s.ctx.Err()
		}
		if s.err != nil {
			return 0, s.err
		}
		s.next()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *source) next() {
	if s.held != nil {
		s.free <- s.held[:cap(s.held)]
		s.held = nil
	}
	var b block
	select {
	case b = <-s.blocks:
	default:
		if s.err = s.idle(); s.err != nil {
			return
		}
		if b, s.err = s.wait(); s.err != nil {
			return
		}
	}
	s.held, s.rest, s.err = b.data, b.data, b.err
	s.size += uint64(len(b.data))
}

func (s *source) wait() (block, error) {
	timer := time.NewTimer(silence)
	defer timer.Stop()
	for {
		select {
		case b := <-s.blocks:
			return b, nil
		case <-timer.C:
			if err := s.silent(); err != nil {
				return block{}, err
			}
		case <-s.ctx.Done():
			return block{}, s.ctx.Err()
		}
	}
}

// unpack returns what is in r, unpacked if gzip has packed it.
func unpack(r io.Reader) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) { // an error shows again when lines are read
		return in, nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	return bufio.NewReaderSize(z, 64<<10), nil
}

// lineReader takes a stream apart into lines.
type lineReader struct {
	in   *bufio.Reader
	long []byte
}

// next returns a line without its end, valid until the next call; cut tells that it was longer than maxLine. The last line needs no
// end; one that was broken off by another error than io.EOF is not given.
func (l *lineReader) next() (line []byte, cut bool, err error) {
	line, err = l.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = l.long[:0]
		for errors.Is(err, bufio.ErrBufferFull) {
			cut = l.keep(line) || cut
			line, err = l.in.ReadSlice('\n')
		}
		cut = l.keep(line) || cut
		line = l.long
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF) && len(line) > 0:
	default:
		return nil, false, err
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), cut, nil
}

// keep adds a part to a long line and tells whether there was too much.
func (l *lineReader) keep(part []byte) bool {
	n := min(len(part), maxLine+1-len(l.long)) // 1 for the end
	l.long = append(l.long, part[:n]...)
	if len(l.long) > maxLine && l.long[maxLine] != '\n' {
		l.long = l.long[:maxLine]
		return true
	}
	return n < len(part)
}

// open opens an input by its name on the command line. Size is 0 where it cannot be known.
func open(name string, stdin io.Reader) (in io.Reader, closer io.Closer, size uint64, err error) {
	if name == stdinName {
		in, closer = stdin, io.NopCloser(nil)
	} else {
		file, err := os.Open(name)
		if err != nil {
			return nil, nil, 0, err
		}
		in, closer = file, file
	}
	if file, ok := in.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			size = uint64(max(0, info.Size())) //nolint:gosec // not negative
		}
	}
	return in, closer, size, nil
}

// nameError adds the name of the input to an error that does not have it.
func nameError(name string, err error) error {
	if name == stdinName {
		name = "standard input"
	}
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) && pathErr.Path == name {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}
