// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// Reader reads nothing: only Linux can be read.
type Reader struct{}

// Open says that only Linux can be read.
func Open(Options) (*Reader, error) {
	return nil, fmt.Errorf("read a host of %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Read knows nothing.
func (*Reader) Read(context.Context) Stats { return Stats{} }

// Status has no parts.
func (*Reader) Status() Status { return Status{} }

// Close does nothing.
func (*Reader) Close() error { return nil }
