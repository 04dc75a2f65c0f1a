// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"regexp"
)

// ErrNotHost reports that what was read is not of the host, but of a namespace that is not the host's, or not known to be.
var ErrNotHost = errors.New("not known to be the host's")

// Options say what to read of which host.
type Options struct {
	Root string // where the host's root file system is; /proc, /sys and /dev are looked for below it

	CPU        bool
	Memory     bool
	Disks      bool // with arrays
	DiskHealth bool // asks the disks themselves, see Reader
	Network    bool
	Pressure   bool

	// Interfaces are those to read, by names that one of the expressions matches. Nil are the physical ones: those with a
	// device, as network cards of virtual machines have one too, and the bonds, teams, VLANs and bridges made of them,
	// because they have the addresses then. Loopback, veth, tunnels, and bridges of containers are not among them.
	Interfaces []*regexp.Regexp
}

// Part is what is read together.
type Part string

// The parts, in the order in which they are read.
const (
	PartUptime     Part = "uptime"
	PartCPU        Part = "cpu"
	PartMemory     Part = "memory"
	PartDisks      Part = "disks"
	PartArrays     Part = "arrays"
	PartDiskHealth Part = "disk_health"
	PartInterfaces Part = "interfaces"
	PartAddresses  Part = "addresses"
	PartProtocols  Part = "protocols" // TCP and UDP
	PartListening  Part = "listening_ports"
	PartConntrack  Part = "conntrack"
	PartPressure   Part = "pressure"
)

// Status is how well a Reader can read.
type Status struct {
	Parts []PartStatus // those that are switched on, in the order in which they are read
}

// PartStatus is how well one part was read the last time.
type PartStatus struct {
	Part Part

	// Err says what is missing and why, or that what was read is not of the host (ErrNotHost). It is nil when all is well.
	// It matches fs.ErrPermission when a privilege is missing, and fs.ErrNotExist when the kernel does not have the part.
	Err error

	// Errors counts the readings that went wrong. What is refused or not there is not among them.
	Errors uint64
}
