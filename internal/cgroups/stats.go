// SPDX-License-Identifier: Apache-2.0

package cgroups

import "time"

// Opt is a value that the kernel may not give: a controller that is not enabled, a file that this kernel version does
// not have, or a limit that is not set. The zero Opt is absent.
type Opt[T any] struct {
	V  T
	OK bool
}

// Some returns a present value.
func Some[T any](v T) Opt[T] { return Opt[T]{V: v, OK: true} }

// Stats are the resource totals of one cgroup, its descendants included. What the kernel does not tell is absent.
type Stats struct {
	CPU      CPU
	Memory   Memory
	Devices  []Device // block devices with any I/O, in the kernel's order
	PIDs     PIDs
	Pressure Pressure
}

// CPU is what cpu.stat and cpu.max (v2) or cpuacct and cpu.cfs_* (v1) say.
type CPU struct {
	Usage, User, System       Opt[time.Duration]
	Throttled                 Opt[time.Duration]
	Periods, ThrottledPeriods Opt[uint64]
	LimitCores                Opt[float64] // absent when there is no quota
}

// Memory is in bytes, except for faults and events, which are counts.
type Memory struct {
	Usage      Opt[uint64]
	WorkingSet Opt[uint64] // usage less inactive file pages, never below zero
	RSS        Opt[uint64] // anonymous and mapped file pages
	Cache      Opt[uint64] // page cache
	Swap       Opt[uint64]
	Kernel     Opt[uint64]
	Peak       Opt[uint64] // memory.peak needs Linux 5.19
	Limit      Opt[uint64] // absent when there is none

	MinorFaults, MajorFaults Opt[uint64]
	Events                   MemoryEvents
}

// MemoryEvents are the counters of memory.events (v2 only; OOMKill also from memory.oom_control of v1, Linux 4.13).
type MemoryEvents struct {
	Low, High, Max, OOM, OOMKill Opt[uint64]
}

// Device is the I/O of one block device, which is a whole disk for the v2 io controller.
type Device struct {
	Major, Minor          uint32
	ReadBytes, WriteBytes uint64
	Reads, Writes         uint64
}

// PIDs counts tasks, threads included, as the pids controller does.
type PIDs struct {
	Current, Limit Opt[uint64] // Limit is absent when there is none
}

// Pressure is the PSI of one cgroup (v2, Linux 4.20; kernels booted with psi=0 have none).
type Pressure struct {
	CPU, Memory, IO Stall
}

// Stall is the total time in which some or all tasks waited for a resource.
type Stall struct {
	Some, Full Opt[time.Duration] // cpu has Full since Linux 5.13
}
