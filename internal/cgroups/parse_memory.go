// SPDX-License-Identifier: Apache-2.0

package cgroups

import "fmt"

// memoryStat is what Memory needs of memory.stat, for either version. A field is absent when the kernel has no such key.
type memoryStat struct {
	anon, mapped, cache, swap, inactiveFile Opt[uint64]
	faults, majorFaults                     Opt[uint64]

	// Kernel memory, v2 only. total is the key kernel of Linux 5.18, the others are its parts before.
	kernel kernelMemory
}

type kernelMemory struct{ total, stack, pageTables, secPageTables, perCPU, slab Opt[uint64] }

// parseMemoryStat reads memory.stat of v2.
func parseMemoryStat(b []byte, m *memoryStat) error {
	for len(b) > 0 {
		var key, val []byte
		key, val, b = keyValue(b)
		var to *Opt[uint64]
		switch string(key) {
		case "anon":
			to = &m.anon
		case "file":
			to = &m.cache
		case "file_mapped":
			to = &m.mapped
		case "inactive_file":
			to = &m.inactiveFile
		case "pgfault":
			to = &m.faults
		case "pgmajfault":
			to = &m.majorFaults
		case "kernel":
			to = &m.kernel.total
		case "kernel_stack":
			to = &m.kernel.stack
		case "pagetables":
			to = &m.kernel.pageTables
		case "sec_pagetables":
			to = &m.kernel.secPageTables
		case "percpu":
			to = &m.kernel.perCPU
		case "slab":
			to = &m.kernel.slab
		default:
			continue
		}
		if err := set(to, key, val); err != nil {
			return err
		}
	}
	return nil
}

// parseLegacyMemoryStat reads memory.stat of v1. The keys that count descendants too begin with total_; a cgroup's own
// keys stand before them and are longer to skip than to compare.
func parseLegacyMemoryStat(b []byte, m *memoryStat) error {
	for len(b) > 0 {
		var key, val []byte
		key, val, b = keyValue(b)
		if len(key) == 0 || key[0] != 't' {
			continue
		}
		var to *Opt[uint64]
		switch string(key) {
		case "total_rss":
			to = &m.anon
		case "total_mapped_file":
			to = &m.mapped
		case "total_cache":
			to = &m.cache
		case "total_swap":
			to = &m.swap
		case "total_inactive_file":
			to = &m.inactiveFile
		case "total_pgfault":
			to = &m.faults
		case "total_pgmajfault":
			to = &m.majorFaults
		default:
			continue
		}
		if err := set(to, key, val); err != nil {
			return err
		}
	}
	return nil
}

func set(to *Opt[uint64], key, val []byte) error {
	v, err := parseUint(val)
	if err != nil {
		return fmt.Errorf("%s %.40q: %w", key, val, err)
	}
	*to = Some(v)
	return nil
}

// fill puts what follows from memory.stat into m, whose Usage is set before.
//
// RSS is anonymous and mapped file memory. The working set is usage without the file pages that the kernel would drop
// first. A page fault that needed no disk is minor.
func (s *memoryStat) fill(m *Memory) {
	if s.anon.OK && s.mapped.OK {
		m.RSS = Some(addClamped(s.anon.V, s.mapped.V))
	}
	m.Cache = s.cache
	if m.Usage.OK && s.inactiveFile.OK {
		m.WorkingSet = Some(subClamped(m.Usage.V, s.inactiveFile.V))
	}
	if s.swap.OK {
		m.Swap = s.swap
	}
	if s.faults.OK && s.majorFaults.OK {
		m.MinorFaults = Some(subClamped(s.faults.V, s.majorFaults.V))
	}
	m.MajorFaults = s.majorFaults
	if k := s.kernel.sum(); k.OK {
		m.Kernel = k
	}
}

// sum returns the kernel's own total, or else the sum of the parts that this kernel counts: before 5.18 there is no
// total, before 5.11 there are no page tables in it.
func (k *kernelMemory) sum() Opt[uint64] {
	if k.total.OK {
		return k.total
	}
	var sum Opt[uint64]
	for _, part := range [...]Opt[uint64]{k.stack, k.pageTables, k.secPageTables, k.perCPU, k.slab} {
		if part.OK {
			sum = Some(addClamped(sum.V, part.V))
		}
	}
	return sum
}

func addClamped(a, b uint64) uint64 {
	if s := a + b; s >= a {
		return s
	}
	return ^uint64(0)
}

func subClamped(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}
