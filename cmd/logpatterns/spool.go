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

// spool keeps messages and their levels for a second look, in their order. The zero value is ready.
type spool struct {
	memory []byte
	file   *os.File // nil until needed
}

func (s *spool) add(level logpatterns.Level, message []byte) error {
	s.memory = append(s.memory, byte(level))
	s.memory = binary.AppendUvarint(s.memory, uint64(len(message)))
	s.memory = append(s.memory, message...)
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

// all calls each for the messages; they are valid during the call only.
func (s *spool) all(each func(level logpatterns.Level, message []byte) error) error {
	var r io.Reader = bytes.NewReader(s.memory)
	if s.file != nil {
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		r = io.MultiReader(s.file, r)
	}
	in := bufio.NewReaderSize(r, 256<<10)
	var message []byte
	for {
		level, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		size, err := binary.ReadUvarint(in)
		if err != nil || size > maxLine {
			return fmt.Errorf("temporary file: message of %d bytes: %w", size, err)
		}
		if uint64(cap(message)) < size {
			message = make([]byte, size)
		}
		message = message[:size]
		if _, err := io.ReadFull(in, message); err != nil {
			return fmt.Errorf("temporary file: %w", err)
		}
		if err := each(logpatterns.Level(level), message); err != nil {
			return err
		}
	}
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
		_ = os.Remove(s.file.Name())
	}
}

// printLines writes for each message the pattern that it has now.
func printLines(out *bufio.Writer, miner *logpatterns.Miner, messages *spool, minLevel logpatterns.Level) error {
	line := uint64(0)
	return messages.all(func(level logpatterns.Level, message []byte) error {
		line++
		var p logpatterns.Pattern
		if len(message) > 0 {
			p = miner.Find(message)
		}
		return printLine(out, line, level, minLevel, p)
	})
}

// printLine writes one line of -format tsv.
func printLine(out *bufio.Writer, line uint64, level, minLevel logpatterns.Level, p logpatterns.Pattern) error {
	if level < minLevel {
		return nil
	}
	id := p.ID()
	if id == "" {
		id = noValue
	}
	b := strconv.AppendUint(out.AvailableBuffer(), line, 10)
	b = append(append(append(b, '\t'), id...), '\n')
	_, err := out.Write(b)
	return asOutput(err)
}
