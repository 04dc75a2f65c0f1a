// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package mounts

import (
	"context"
	"errors"
	"fmt"
)

// Reader looks at the mounts of containers, which only Linux has.
type Reader struct{}

// Open returns a Reader that sees nothing.
func Open(Options) *Reader { return &Reader{} }

// Close does nothing.
func (*Reader) Close() {}

// Stats returns nothing.
func (*Reader) Stats() Stats { return Stats{} }

// Disk knows only the number.
func (*Reader) Disk(n DeviceNumber) Disk { return Disk{Name: n.String(), Whole: n} }

// Look says that there is nothing to see.
func (*Reader) Look(_ []int, before []Mount) ([]Mount, error) {
	return before, fmt.Errorf("look at mounts: %w", errors.ErrUnsupported)
}

// Sizes says that there is nothing to see.
func (*Reader) Sizes(context.Context, []SizeRequest) ([][]Usage, error) {
	return nil, fmt.Errorf("sizes of mounts: %w", errors.ErrUnsupported)
}
