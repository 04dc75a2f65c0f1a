// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"bytes"
	"time"
)

// reading is what one Read gathers: what goes into Stats as it stands, and what is worked out when all files are read.
type reading struct {
	s    *Stats
	tick time.Duration // of cpuacct.stat

	memory        memoryStat
	quota, period Opt[uint64] // v1
	populated     bool
}

// finish works out what rests on more than one file.
func (r *reading) finish() {
	r.memory.fill(&r.s.Memory)
	if r.quota.OK && r.period.OK {
		// A period of zero cannot be set.
		r.s.CPU.LimitCores, _ = cores(r.quota.V, r.period.V)
	}
}

// The conditions of files.

func (r *reading) hasNoQuota() bool { return !r.quota.OK }

func (r *reading) hasNoBytes() bool { return !r.hasBytes() }

func (r *reading) hasBytes() bool {
	for i := range r.s.Devices {
		if r.s.Devices[i].ReadBytes|r.s.Devices[i].WriteBytes != 0 {
			return true
		}
	}
	return false
}

// needsNoOps tells whether there are operations already, or no bytes that they could belong to.
func (r *reading) needsNoOps() bool {
	moved := false
	for i := range r.s.Devices {
		if r.s.Devices[i].Reads|r.s.Devices[i].Writes != 0 {
			return true
		}
		moved = moved || r.s.Devices[i].ReadBytes|r.s.Devices[i].WriteBytes != 0
	}
	return !moved
}

// file is one file of a cgroup and how it is read.
type file struct {
	name   string
	second bool                  // read only when the file before it in the list does not exist
	unless func(r *reading) bool // read only when this is false or nil
	parse  func(r *reading, b []byte) error
}

// source is a set of files of one controller that tell the same as those of other sources of its group.
type source struct {
	controller string // v1, "" for v2
	files      []file
}

// group is one subject. The first source counts of which the cgroup has any file: the v1 controller where it is mounted
// and the cgroup is in it, otherwise v2. The kernel never gives one controller to both.
type group []source

// eventsFile tells whether a cgroup of v2 has processes. The root has no such file.
var eventsFile = file{name: "cgroup.events", parse: func(r *reading, b []byte) (err error) {
	r.populated, err = parsePopulated(b)
	return err
}}

// groups are all subjects. cpu.stat of v2 is there without any controller, with usage alone; on v1 it is cpuacct that
// knows the usage.
var groups = []group{
	{{controller: "cpuacct", files: legacyUsageFiles}, {files: usageFiles}},
	{{controller: "cpu", files: legacyCPUFiles}, {files: cpuFiles}},
	{{controller: "memory", files: legacyMemoryFiles}, {files: memoryFiles}},
	{{controller: "blkio", files: legacyIOFiles}, {files: ioFiles}},
	{{controller: "pids", files: pidsFiles}, {files: pidsFiles}},
	{{files: pressureFiles}},
}

var usageFiles = []file{
	{name: "cpu.stat", parse: func(r *reading, b []byte) error { return parseCPUStat(b, &r.s.CPU) }},
}

var cpuFiles = []file{
	{name: "cpu.max", parse: func(r *reading, b []byte) (err error) {
		r.s.CPU.LimitCores, err = parseCPUMax(b)
		return err
	}},
}

// cpuacct.usage_user and cpuacct.usage_sys have nanoseconds, but before Linux 5.17 they put time on the wrong side; see
// the commit "sched/cpuacct: Fix user/system in shown cpuacct.usage*". cpuacct.stat is right everywhere.
var legacyUsageFiles = []file{
	{name: "cpuacct.usage", parse: func(r *reading, b []byte) (err error) {
		r.s.CPU.Usage, err = parseDuration(bytes.TrimSpace(b), time.Nanosecond)
		return err
	}},
	{name: "cpuacct.stat", parse: func(r *reading, b []byte) error { return parseCPUAcctStat(b, r.tick, &r.s.CPU) }},
}

var legacyCPUFiles = []file{
	{name: "cpu.stat", parse: func(r *reading, b []byte) error { return parseCPUStat(b, &r.s.CPU) }},
	{name: "cpu.cfs_quota_us", parse: func(r *reading, b []byte) (err error) {
		r.quota, err = parseLegacyQuota(b)
		return err
	}},
	{name: "cpu.cfs_period_us", unless: (*reading).hasNoQuota, parse: func(r *reading, b []byte) (err error) {
		r.period, err = parseValue(b)
		return err
	}},
}

var memoryFiles = []file{
	{name: "memory.current", parse: func(r *reading, b []byte) (err error) {
		r.s.Memory.Usage, err = parseValue(b)
		return err
	}},
	{name: "memory.stat", parse: func(r *reading, b []byte) error { return parseMemoryStat(b, &r.memory) }},
	{name: "memory.max", parse: func(r *reading, b []byte) (err error) {
		r.s.Memory.Limit, err = parseMax(b)
		return err
	}},
	{name: "memory.peak", parse: parsePeak},
	{name: "memory.swap.current", parse: func(r *reading, b []byte) (err error) {
		r.s.Memory.Swap, err = parseValue(b)
		return err
	}},
	{name: "memory.events", parse: parseEvents},
}

// memory.oom_control counts kills in this cgroup alone; those in cgroups below it are in theirs.
var legacyMemoryFiles = []file{
	{name: "memory.usage_in_bytes", parse: func(r *reading, b []byte) (err error) {
		r.s.Memory.Usage, err = parseValue(b)
		return err
	}},
	{name: "memory.stat", parse: func(r *reading, b []byte) error { return parseLegacyMemoryStat(b, &r.memory) }},
	{name: "memory.limit_in_bytes", parse: func(r *reading, b []byte) (err error) {
		r.s.Memory.Limit, err = parseLegacyLimit(b)
		return err
	}},
	{name: "memory.max_usage_in_bytes", parse: parsePeak},
	{name: "memory.kmem.usage_in_bytes", parse: func(r *reading, b []byte) (err error) {
		r.s.Memory.Kernel, err = parseValue(b)
		return err
	}},
	{name: "memory.oom_control", parse: parseEvents},
}

func parsePeak(r *reading, b []byte) (err error) {
	r.s.Memory.Peak, err = parseValue(b)
	return err
}

func parseEvents(r *reading, b []byte) error { return parseMemoryEvents(b, &r.s.Memory.Events) }

var ioFiles = []file{
	{name: "io.stat", parse: func(r *reading, b []byte) (err error) {
		r.s.Devices, err = parseIOStat(b, r.s.Devices)
		return err
	}},
}

// The throttling files stay empty on late kernels (seen on 6.18) until some limit was set on the disk. The files of BFQ
// count where that scheduler is in use. Operations come after bytes since without those there are none worth a read.
var legacyIOFiles = []file{
	{name: "blkio.throttle.io_service_bytes_recursive", parse: parseBytes},
	{name: "blkio.throttle.io_service_bytes", second: true, parse: parseBytes},
	{name: "blkio.bfq.io_service_bytes_recursive", unless: (*reading).hasBytes, parse: parseBytes},
	{name: "blkio.throttle.io_serviced_recursive", unless: (*reading).hasNoBytes, parse: parseOps},
	{name: "blkio.throttle.io_serviced", second: true, unless: (*reading).hasNoBytes, parse: parseOps},
	{name: "blkio.bfq.io_serviced_recursive", unless: (*reading).needsNoOps, parse: parseOps},
}

func parseBytes(r *reading, b []byte) (err error) {
	r.s.Devices, err = parseBlkioBytes(b, r.s.Devices)
	return err
}

func parseOps(r *reading, b []byte) (err error) {
	r.s.Devices, err = parseBlkioOps(b, r.s.Devices)
	return err
}

var pidsFiles = []file{
	{name: "pids.current", parse: func(r *reading, b []byte) (err error) {
		r.s.PIDs.Current, err = parseValue(b)
		return err
	}},
	{name: "pids.max", parse: func(r *reading, b []byte) (err error) {
		r.s.PIDs.Limit, err = parseMax(b)
		return err
	}},
}

var pressureFiles = []file{
	{name: "cpu.pressure", parse: func(r *reading, b []byte) (err error) {
		r.s.Pressure.CPU, err = parsePressure(b)
		return err
	}},
	{name: "memory.pressure", parse: func(r *reading, b []byte) (err error) {
		r.s.Pressure.Memory, err = parsePressure(b)
		return err
	}},
	{name: "io.pressure", parse: func(r *reading, b []byte) (err error) {
		r.s.Pressure.IO, err = parsePressure(b)
		return err
	}},
}
