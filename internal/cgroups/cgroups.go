// SPDX-License-Identifier: Apache-2.0

// Package cgroups finds the control groups of a host, tells which container each belongs to, and reads their totals.
//
// It understands the v2 hierarchy, the v1 controllers and hosts that mount both. The identity of a container comes from
// the path of its cgroup alone, see ParsePath, so that no runtime has to be asked. It keeps no state of containers and
// starts no goroutine.
package cgroups

// Hierarchy tells the v2 (unified) hierarchy from the v1 (legacy) one.
type Hierarchy uint8

// The hierarchies.
const (
	Unified Hierarchy = iota
	Legacy
)

// ID names one cgroup of this host. Inode numbers of different hierarchies overlap, so both parts are needed.
type ID struct {
	Hierarchy Hierarchy
	Inode     uint64 // of the cgroup's directory; the kernel's cgroup id (kn->id) on 64-bit hosts since Linux 5.5
}

// Dir is one cgroup that Walk found.
type Dir struct {
	ID   ID
	Path string // below the root of its hierarchy, begins with a slash
}

// Mode tells how the host mounts its cgroup file systems.
type Mode uint8

// The modes.
const (
	ModeUnified Mode = iota // v2 alone
	ModeHybrid              // v1 controllers beside a v2 hierarchy that has few controllers or none
	ModeLegacy              // v1 alone
)

// String returns unified, hybrid or legacy.
func (m Mode) String() string {
	switch m {
	case ModeUnified:
		return "unified"
	case ModeHybrid:
		return "hybrid"
	default:
		return "legacy"
	}
}
