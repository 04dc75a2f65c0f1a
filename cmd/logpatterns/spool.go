// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

// spoolMemory is how many bytes of messages are kept in memory; what is more goes to a temporary file.
const spoolMemory = 32 << 20

// spool keeps messages for a second look, in their order. The zero value is ready.
type spool struct {
	memory []byte
	file   *os.File // nil until needed
}

func (s *spool) add(m message) error {
	s.memory = append(s.memory, byte(m.level))
	s.memory = binary.AppendUvarint(s.memory, m.lines)
	s.memory = binary.AppendUvarint(s.memory, uint64(len(m.text)))
	s.memory = append(s.memory, m.text...)
	if len(s.memory) < spoolMemory {
		return nil
	}
	return s.spill()
}

func (s *spool) spill() error {
	if s.file == nil {
		file, err := os.CreateTemp("", "logpatterns-")
		if err != nil {
			return asOutput(err)
		}
		s.file = file
		_ = os.Remove(file.Name()) // so that it goes however the process ends; not on Windows
	}
	if _, err := s.file.Write(s.memory); err != nil {
		return asOutput(err)
	}
	s.memory = s.memory[:0]
	return nil
}

// all calls each for the messages; their texts are valid during the call only.
func (s *spool) all(each func(m message) error) error {
	var r io.Reader = bytes.NewReader(s.memory)
	if s.file != nil {
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		r = io.MultiReader(s.file, r)
	}
	in := bufio.NewReaderSize(r, 256<<10)
	var text []byte
	for line := uint64(1); ; {
		level, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		lines, err := binary.ReadUvarint(in)
		if err != nil {
			return fmt.Errorf("temporary file: %w", err)
		}
		size, err := binary.ReadUvarint(in)
		if err != nil || size > maxLine {
			return fmt.Errorf("temporary file: message of %d bytes: %w", size, err)
		}
		if uint64(cap(text)) < size {
			text = make([]byte, size)
		}
		text = text[:size]
		if _, err := io.ReadFull(in, text); err != nil {
			return fmt.Errorf("temporary file: %w", err)
		}
		if err := each(message{text, logpatterns.Level(level), line, lines}); err != nil {
			return err
		}
		line += lines
	}
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
		_ = os.Remove(s.file.Name())
	}
}

// printSpool writes for each message the pattern that it has now.
func printSpool(out *bufio.Writer, miner *logpatterns.Miner, messages *spool, minLevel logpatterns.Level) error {
	return messages.all(func(m message) error {
		var p logpatterns.Pattern
		if len(m.text) > 0 {
			p = miner.Find(m.text)
		}
		return printLines(out, m, minLevel, p)
	})
}

// printLines writes the lines of -format tsv for those of a message.
func printLines(out *bufio.Writer, m message, minLevel logpatterns.Level, p logpatterns.Pattern) error {
	if m.level < minLevel {
		return nil
	}
	id := p.ID()
	if id == "" {
		id = noValue
	}
	for i := range m.lines {
		b := strconv.AppendUint(out.AvailableBuffer(), m.line+i, 10)
		b = append(append(append(b, '\t'), id...), '\n')
		if _, err := out.Write(b); err != nil {
			return asOutput(err)
		}
	}
	return nil
}
