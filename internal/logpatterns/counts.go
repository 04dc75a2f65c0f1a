// SPDX-License-Identifier: Apache-2.0

package logpatterns

// MaxSources is how many sources a Miner tells apart.
const MaxSources = 16

// counts are the messages of each source that has some, in the order of sources. The first is part of what has them: a pattern
// of one source needs no more room.
type counts struct {
	levels [NumLevels]uint64
	next   *counts
	source uint8
}

// of returns what a source has, nil for nothing.
func (c *counts) of(source uint8) *[NumLevels]uint64 {
	for ; c != nil; c = c.next {
		if c.source == source {
			return &c.levels
		}
	}
	return nil
}

// has tells whether there are messages of a source and level.
func (c *counts) has(source uint8, level Level) bool {
	levels := c.of(source)
	return levels != nil && levels[level] > 0
}

// add counts n messages more, at least one.
func (c *counts) add(source uint8, level Level, n uint64) {
	for c.source != source {
		switch {
		case c.levels == [NumLevels]uint64{}: // only the first is ever empty
			c.source = source
		case c.source > source:
			*c = counts{source: source, next: &counts{c.levels, c.next, c.source}}
		case c.next == nil:
			c.next = &counts{source: source}
			fallthrough
		default:
			c = c.next
		}
	}
	c.levels[level] += n
}

func (c *counts) sum() (n uint64) {
	for ; c != nil; c = c.next {
		for _, v := range c.levels {
			n += v
		}
	}
	return n
}

// appendTo lists what there is, as counts of a pattern.
func (c *counts) appendTo(list []Count, p Pattern) []Count {
	for ; c != nil; c = c.next {
		for level, n := range c.levels {
			if n > 0 {
				list = append(list, Count{p, c.source, Level(level), n}) //nolint:gosec // few
			}
		}
	}
	return list
}

// flat are the numbers as they are saved: by level, those of one source behind the other.
func (c *counts) flat() (list []uint64) {
	for ; c != nil; c = c.next {
		list = append(list, make([]uint64, int(c.source)*int(NumLevels)-len(list))...)
		list = append(list, c.levels[:]...)
	}
	return list
}

// eachFlat goes through what flat has made, but for zeros. What is behind the last source counts as of that.
func eachFlat(list []uint64, each func(source uint8, level Level, n uint64)) {
	for i, n := range list {
		if n > 0 {
			each(uint8(min(i/int(NumLevels), MaxSources-1)), Level(i%int(NumLevels)), n) //nolint:gosec // few
		}
	}
}
