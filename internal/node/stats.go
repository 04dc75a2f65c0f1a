// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// Opt is a value that the host may not tell.
type Opt[T any] struct {
	V  T
	OK bool
}

// Some returns a present value.
func Some[T any](v T) Opt[T] { return Opt[T]{V: v, OK: true} }

// Stats are the totals and states of the host at one moment. What is not known is absent, never zero; a slice has what
// there is. Totals count since the host was booted, unless said otherwise. Every string is valid UTF-8.
type Stats struct {
	Uptime     Opt[time.Duration]
	CPU        Opt[CPU]
	Memory     Memory
	Disks      []Disk   // in the kernel's order
	Arrays     []Array  // of Linux software RAID, in the kernel's order
	Health     []Health // of the disks that tell, by name
	Interfaces []Interface
	TCP        TCP
	UDP        UDP
	Listening  Listening
	Conntrack  Conntrack
	Pressure   Pressure
}

// CPU is how long all CPUs together have been in each mode, in seconds: a time.Duration would overflow after a year on 256
// of them. It never falls, although the kernel's numbers do by a little now and then.
type CPU struct {
	LogicalCores int // that are online

	User    float64 // guests included
	Nice    float64 // guests included
	System  float64
	Idle    float64
	IOWait  float64
	IRQ     float64
	SoftIRQ float64
	Steal   float64
}

// Memory is in bytes.
type Memory struct {
	Total, Free Opt[uint64]
	Available   Opt[uint64] // since Linux 3.14
	Cached      Opt[uint64]
}

// Disk is what a whole block device has done.
//
// Partitions are in the disk that they are on. Left out are loop and ram devices, zram, optical and floppy drives, disks
// without a medium and the single paths of NVMe multipath.
type Disk struct {
	Name string // as in /dev: sda, nvme0n1, dm-0, md127

	// Stacked says that the disk is made of others (LVM, dm-crypt, md, bcache), which count the same operations again.
	Stacked bool

	Reads, Writes       uint64
	Read, Written       uint64        // bytes
	ReadTime, WriteTime time.Duration // summed over operations, so that it can be more than the time that passed
	IOTime              time.Duration // with at least one operation under way
}

// Array is a Linux software RAID.
type Array struct {
	Name  string // md0
	Level string // raid1, raid5, ...; "unknown" when the kernel has no such personality loaded

	// State is active, inactive, broken, or what an active one is doing: recovering, resyncing, reshaping or checking.
	State string

	Active uint64 // disks that are in use and in sync
	Total  uint64 // disks that a complete array has
	Failed uint64
	Spare  uint64
	Down   uint64 // places of a complete array that have no working disk

	Synced Opt[float64] // share that is done, 0 to 1, while it recovers, resyncs, reshapes or checks
}

// Degraded reports that the array runs, but with fewer disks than it should.
func (a *Array) Degraded() bool {
	return a.State != arrayInactive && (a.Down > 0 || a.Active < a.Total)
}

const arrayInactive = "inactive"

// Health is what a disk says of itself. ATA knows percentage used and media errors only as some vendors count them: the
// first is absent, the second is attribute 187, Reported Uncorrectable Errors, where there is one.
type Health struct {
	Disk           string
	Passed         Opt[bool]          // false: the disk expects to fail, or is outside of its limits already
	Temperature    Opt[int]           // degrees Celsius
	PercentageUsed Opt[uint8]         // of the life that the vendor expects; may exceed 100
	MediaErrors    Opt[uint64]        // data that could not be read back, in the life of the disk
	PowerOn        Opt[time.Duration] // in the life of the disk, whole hours
}

// Interface is a network interface and its totals since it was made.
type Interface struct {
	Name              string
	Up                Opt[bool] // can carry packets
	Receive, Transmit Traffic
	Addresses         []netip.Addr // none that are link-local or not yet known to be unique; sorted
}

// Traffic is what has gone through an interface in one direction.
type Traffic struct {
	Bytes, Packets uint64
	Errors         uint64
	Drops          uint64 // of received packets with those for which the device had no room
}

// TCP is of IPv4 and IPv6 together.
type TCP struct {
	Retransmits       Opt[uint64] // segments
	ResetsSent        Opt[uint64] // with answers to segments that belong to no connection
	EstablishedResets Opt[uint64] // established connections that ended by a reset, sent or received
	ListenDrops       Opt[uint64] // connections that a listener could not take, for any reason
	ListenOverflows   Opt[uint64] // those of them that found its queue full
}

// UDP is of IPv4 and IPv6 together.
type UDP struct {
	ReceiveErrors       Opt[uint64] // datagrams not delivered: the next two and bad ones
	ReceiveBufferErrors Opt[uint64] // the socket's buffer was full
	ChecksumErrors      Opt[uint64]
	SendBufferErrors    Opt[uint64]
	NoPort              Opt[uint64] // datagrams to a port that nobody has open
}

// Listening is how many ports are open: an address does not matter, nor IPv4 or IPv6.
type Listening struct {
	TCP Opt[int]
	UDP Opt[int] // of sockets that are not connected
}

// Conntrack is the kernel's table of connections, absent while nothing uses it.
type Conntrack struct {
	Entries, Limit Opt[uint64]
}

// Pressure is what tasks have waited for, since Linux 4.20 with CONFIG_PSI, unless booted with psi=0.
type Pressure struct {
	CPU    Stall // Full is absent: the kernel defines it for cgroups only
	Memory Stall
	IO     Stall
}

// Stall is the time in which some, or all tasks that could run, had to wait for a resource.
type Stall struct {
	Some, Full Opt[time.Duration]
}

// validName writes the bytes of a name that are not UTF-8 as \xNN. The kernel allows interfaces and disks almost any
// name, while one bad label spoils a whole scrape.
func validName(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b.WriteString(`\x` + string(hex[s[i]>>4]) + string(hex[s[i]&15]))
		} else {
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}
