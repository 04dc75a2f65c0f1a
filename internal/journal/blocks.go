// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io"
)

const (
	blockSize = 16 << 10
	blockSets = 64
	blockWays = 4
)

// blocks holds what was last read of all files, 4 MiB at most. Files are read, not mapped: a mapped file that somebody truncates
// ends the process by SIGBUS.
type blocks struct {
	sets    [blockSets][blockWays]block
	turn    [blockSets]uint8
	scratch []byte // for what crosses the border of two blocks
}

type block struct {
	file, generation uint32 // file 0: empty
	number           uint64
	data             []byte // shorter than blockSize at the end of the file
}

// view returns n bytes at offset, valid until the next view. It fails with errDamaged when the file is shorter.
func (c *blocks) view(f *file, offset, n uint64) ([]byte, error) {
	if offset > f.size || n > f.size-offset {
		return nil, fmt.Errorf("%d bytes at %d of %d: %w", n, offset, f.size, errDamaged)
	}
	number, at := offset/blockSize, offset%blockSize
	if at+n <= blockSize {
		data, err := c.block(f, number)
		if err != nil || at+n > uint64(len(data)) {
			return nil, shortErr(offset, err)
		}
		return data[at : at+n : at+n], nil
	}
	c.scratch = c.scratch[:0]
	for n > 0 {
		data, err := c.block(f, number)
		if err != nil || at >= uint64(len(data)) {
			return nil, shortErr(offset, err)
		}
		part := data[at:min(uint64(len(data)), at+n)]
		c.scratch = append(c.scratch, part...)
		n -= uint64(len(part))
		if n > 0 && len(data) < blockSize {
			return nil, shortErr(offset, nil)
		}
		number, at = number+1, 0
	}
	return c.scratch, nil
}

func shortErr(offset uint64, err error) error {
	if err != nil {
		return fmt.Errorf("at %d: %w: %w", offset, errDamaged, err)
	}
	return fmt.Errorf("file ends before %d: %w", offset, errDamaged)
}

func (c *blocks) block(f *file, number uint64) ([]byte, error) {
	i := (number + uint64(f.id)*7) % blockSets
	set := &c.sets[i]
	for w := range set {
		if b := &set[w]; b.number == number && b.file == f.id && b.generation == f.generation {
			return b.data, nil
		}
	}
	b := &set[c.turn[i]%blockWays]
	c.turn[i]++
	if b.data == nil {
		b.data = make([]byte, blockSize)
	}
	n, err := f.source.ReadAt(b.data[:blockSize], int64(number*blockSize))
	b.data = b.data[:n]
	if err != nil && !errors.Is(err, io.EOF) {
		b.file = 0
		return nil, err
	}
	b.file, b.generation, b.number = f.id, f.generation, number
	return b.data, nil
}
