// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// Snapshot is what was known of all containers of the host at one moment. The caller owns it.
type Snapshot struct {
	At         time.Time
	Containers []Container // sorted by Name; with Options.NameIsIdentity no Name twice
}

// Phase tells where in its life a container is.
type Phase uint8

const (
	// Live containers have a cgroup.
	Live Phase = iota
	// Gone containers have lost their cgroup a short while ago; their last totals are still given.
	Gone
	// Ended containers are given for the last times, so that their series can be ended.
	Ended
)

// Container is one container or system service with all its totals. Totals do not go backwards while Start stays the
// same.
type Container struct {
	Name  string      // path form, such as /docker/web or /system.slice/nginx.service, with the id until a name is known
	Ref   cgroups.Ref // what its cgroup path says of it
	Info  *Info       // what a runtime says of it, nil while none does
	Start time.Time   // when the totals began
	Born  time.Time   // when its present cgroup was made; zero if that was before we watched
	Phase Phase
	Stats cgroups.Stats
	Tasks Tasks

	ApplicationTypes []string // what its processes are, such as postgres, sorted; shared, not to be changed
	EndedTypes       []string // what they were a short while ago, so that these series can be ended

	InfoLabels  InfoLabels   // of its Info
	EndedLabels []InfoLabels // what they were a short while ago

	Logs *LogCounts // nil where nothing was followed; shared, not to be changed

	Disks []Disk // sorted by MountPoint, Device and Volume, no triple twice

	Edges        []Edge        // sorted by Destination and Actual, no pair twice
	Destinations []Destination // sorted by Destination, no Destination twice; each that an edge has, and those that only failed
	Inbound      []Inbound     // sorted by ListenAddr, no ListenAddr twice
	Listeners    []Listener    // sorted by ListenAddr and Proxy, no pair twice
	Queues       []ListenQueue // sorted by ListenAddr, no ListenAddr twice
	Latencies    []Latency     // sorted by DestinationIP, no DestinationIP twice
	Zones        []ZoneTraffic // sorted by Zone, no Zone twice

	ResetsSent, ResetsReceived Opt[uint64] // of established connections, in both directions; unset before the first one
}

// Opt is a value that may be unknown.
type Opt[T any] = cgroups.Opt[T]

// Lifetime tells since when the series of one destination or listener have had their values, and whether they are over.
// Idle ones are ended so that their number stays bounded; should they come back, they begin anew with a later Start.
type Lifetime struct {
	Start time.Time
	Ended bool // given for the last times, so that the series can be ended
}

// Edge is the established TCP traffic that a container began with one destination.
type Edge struct {
	Destination string      // address:port as dialled, or OtherDestination, or PublicDestination
	Actual      string      // the same after NAT
	Zone        string      // of Actual, "" if not known
	FormerZone  Opt[string] // what it was a short while ago, so that these series can be ended
	Lifetime

	Connects      uint64        // handshakes completed
	ConnectTime   time.Duration // duration of the completed handshakes, summed
	Active        uint64        // connections now open
	BytesSent     uint64        // payload, retransmissions not counted twice
	BytesReceived uint64        // payload
	Retransmits   uint64        // segments
	RTT           RTT
}

// Disk is a file system that a container writes to, or a disk of which nothing is mounted there.
type Disk struct {
	MountPoint string // in the container's mount namespace; "" for a disk alone
	Device     string // such as sda1 or dm-0; of a file system on no disk what it is mounted from
	Volume     string // pvc-<uuid>, or ""
	Lifetime

	Usage Opt[DiskUsage]      // absent for a disk alone, and where the file system did not answer in time
	IO    Opt[cgroups.Device] // of the whole disk, at one of the file systems on it alone
}

// DiskUsage is how full a file system is, in bytes.
type DiskUsage struct {
	Size, Used, Reserved uint64 // Reserved is free but for root alone
}

// RTT is a histogram of smoothed round-trip times: each open connection once a collection, and each at its close.
type RTT struct {
	Counts [len(RTTBounds) + 1]uint64 // the last one is above all bounds
	Sum    time.Duration
}

// RTTBounds are the upper bounds, inclusive, of the buckets of RTT.
var RTTBounds = bpf.RTTBounds

// Destination has the connects to one destination that ended without a connection.
type Destination struct {
	Destination string // as in Edge
	Lifetime
	Failed [NumConnectErrors]uint64 // by ConnectError
}

// ConnectError is why a connect failed.
type ConnectError uint8

// The kinds of ConnectError.
const (
	ConnectRefused ConnectError = iota
	ConnectTimeout
	ConnectReset
	ConnectHostUnreachable
	ConnectNetworkUnreachable
	ConnectAborted // given up by the client before there was an answer
	ConnectOther   // such as no free source port, or forbidden by a rule
	NumConnectErrors
)

// Inbound is the TCP traffic that others began with one address on which the container listens or did listen.
type Inbound struct {
	ListenAddr string // address:port that the peers have reached, or OtherDestination
	Lifetime

	Accepted      uint64 // connections established
	Active        uint64 // connections now open
	BytesSent     uint64 // payload, retransmissions not counted twice
	BytesReceived uint64 // payload
}

// Listener is one address on which a container can be reached, or could a short while ago.
type Listener struct {
	ListenAddr string // address:port, never an unspecified address, or OtherDestination
	Proxy      string // "dockerd" for a port that Docker publishes on the host for the container, else ""
	Lifetime
	Open bool
}

// ListenQueue is the sockets that are bound to one address and listen, or did so a short while ago.
type ListenQueue struct {
	ListenAddr string // as bound: an unspecified address stands for all of the namespace; or OtherDestination
	Lifetime
	Open bool

	Overflows uint64 // connections dropped because a queue was full
	Queue     uint64 // established connections that wait for accept()
	Limit     uint64 // how many may wait
}

// Latency is the round-trip time to one address.
type Latency struct {
	DestinationIP string
	Lifetime
	RTT time.Duration // median over the open connections, or that of an echo
}

const (
	// OtherDestination stands for all destinations past the limit of a container.
	OtherDestination = "~other"
	// PublicDestination stands for all public addresses that are not tracked one by one.
	PublicDestination = "~public"
)

// Snapshot reads all containers. What cannot be read of one is as it was before, and counted. The error is that of ctx:
// then what there was no time for is as it was before, too. It changes no totals but the samples in
// RTT: any number of callers see the same.
func (inv *Inventory) Snapshot(ctx context.Context) (Snapshot, error) {
	inv.readLive(ctx)
	inv.readSizes(ctx)
	inv.edgesMu.Lock()
	defer inv.edgesMu.Unlock()
	_ = inv.pass(ctx, true, nil) // counted there
	_ = inv.passTasks()          // likewise
	logged := inv.logCounts()

	inv.mu.Lock()
	defer inv.mu.Unlock()
	s := Snapshot{At: inv.now(), Containers: make([]Container, 0, len(inv.containers))}
	var ended []formerContainer
	for _, c := range inv.containers {
		phase, dropped := c.phase(s.At, inv.opts.Keep)
		if dropped || c.age(s.At) < inv.opts.MinAge || !c.isShown(s.At) {
			continue
		}
		stats := c.current.lastStats()
		addPast(&stats, &c.past)
		stats.Devices = c.devicesOf(stats.Devices)
		one := Container{
			Name:  c.name,
			Ref:   c.ref,
			Info:  c.info,
			Start: c.start,
			Born:  c.current.birth(),
			Phase: phase,
			Stats: stats,

			ApplicationTypes: c.types,
			EndedTypes:       c.typesEndedSince(s.At.Add(-inv.opts.Keep)),

			Logs: logged[c.logs.owner],

			InfoLabels:  c.info.labels(),
			EndedLabels: c.labelsEndedSince(s.At.Add(-inv.opts.Keep)),
		}
		inv.giveTasks(&one, c)
		inv.giveDisks(&one, c, s.At)
		inv.giveNetwork(&one, c, s.At)
		s.Containers = append(s.Containers, one)
		c.given = true
		for _, f := range c.formerSince(s.At.Add(-inv.opts.Keep)) {
			if inv.opts.NameIsIdentity && inv.containers[f.name] != nil {
				continue // another's by now
			}
			was := one
			was.Name, was.Info, was.InfoLabels, was.Phase = f.name, f.info, f.info.labels(), Ended
			ended = append(ended, formerContainer{was, f.at})
		}
	}
	s.Containers = inv.appendEnded(s.Containers, ended)
	slices.SortFunc(s.Containers, func(a, b Container) int { return cmp.Compare(a.Name, b.Name) })
	return s, ctx.Err()
}

// formerContainer is a container under an identity that it had until a short while ago.
type formerContainer struct {
	Container
	until time.Time
}

// appendEnded adds those to list. Where names are all that tells containers apart several may have had one name, one after
// the other; the last of them is given.
func (inv *Inventory) appendEnded(list []Container, ended []formerContainer) []Container {
	if inv.opts.NameIsIdentity {
		slices.SortFunc(ended, func(a, b formerContainer) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), b.until.Compare(a.until))
		})
		ended = slices.CompactFunc(ended, func(a, b formerContainer) bool { return a.Name == b.Name })
	}
	for i := range ended {
		list = append(list, ended[i].Container)
	}
	return list
}

// readLive reads the files of all containers that have some, until ctx ends. It does not hold up events.
func (inv *Inventory) readLive(ctx context.Context) {
	inv.mu.Lock()
	live := make([]*life, 0, len(inv.containers))
	for _, c := range inv.containers {
		if c.goneAt.IsZero() && c.isRead() {
			live = append(live, c.current)
		}
	}
	inv.mu.Unlock()
	var failed uint64
	for _, l := range live {
		if ctx.Err() != nil {
			break
		}
		if err := l.read(inv.now()); err != nil {
			failed++
		}
	}
	inv.mu.Lock()
	inv.status.ReadErrors += failed
	inv.mu.Unlock()
}
