// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package logfiles

import (
	"errors"
	"fmt"
)

// Finder finds log files, which it can only on Linux.
type Finder struct{ options Options }

// New returns a Finder that finds nothing.
func New(o Options) *Finder {
	o.setDefaults()
	return &Finder{o}
}

// Open returns errors.ErrUnsupported.
func (*Finder) Open(pid int) ([]File, error) {
	return nil, fmt.Errorf("open files of process %d: %w", pid, errors.ErrUnsupported)
}

// Written finds nothing.
func (*Finder) Written(int, Write) (File, bool) { return File{}, false }

// Stats returns nothing.
func (*Finder) Stats() Stats { return Stats{} }

// Disk knows none.
func (*Finder) Disk(int, File) uint64 { return 0 }
