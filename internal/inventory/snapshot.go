// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// Snapshot is what was known of all containers of the host at one moment. The caller owns it.
type Snapshot struct {
	At         time.Time
	Containers []Container // sorted by Name, no Name twice
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
	Name  string      // path form, such as /docker/<id> or /system.slice/nginx.service
	Ref   cgroups.Ref // what its cgroup path says of it
	Start time.Time   // when the totals began
	Born  time.Time   // when its present cgroup was made; zero if that was before we watched
	Phase Phase
	Stats cgroups.Stats
	Edges []Edge // sorted by Destination, no Destination twice
}

// Edge is the TCP traffic that a container began with one destination.
type Edge struct {
	Destination string // address:port as dialled, or OtherDestination, or PublicDestination
	Actual      string // the same after NAT

	Connects       uint64        // handshakes completed
	FailedConnects uint64        // attempts that ended without one
	ConnectTime    time.Duration // duration of the completed handshakes, summed
	Active         uint64        // connections now open
	BytesSent      uint64        // payload, retransmissions not counted twice
	BytesReceived  uint64        // payload
	Retransmits    uint64        // segments
}

const (
	// OtherDestination stands for all destinations past the limit of a container.
	OtherDestination = "~other"
	// PublicDestination stands for all public addresses that are not tracked one by one.
	PublicDestination = "~public"
)

// Snapshot reads all containers. What cannot be read of one is as it was before, and counted. The error is that of ctx:
// then what there was no time for is as it was before, too. It changes no totals: any number of callers see the same.
func (inv *Inventory) Snapshot(ctx context.Context) (Snapshot, error) {
	inv.readLive(ctx)
	inv.edgesMu.Lock()
	defer inv.edgesMu.Unlock()
	_ = inv.passEdges(nil) // counted there

	inv.mu.Lock()
	defer inv.mu.Unlock()
	s := Snapshot{At: inv.now(), Containers: make([]Container, 0, len(inv.containers))}
	for _, c := range inv.containers {
		phase, dropped := c.phase(s.At, inv.opts.Keep)
		if dropped || c.age(s.At) < inv.opts.MinAge {
			continue
		}
		stats := c.current.lastStats()
		addPast(&stats, &c.past)
		s.Containers = append(s.Containers, Container{
			Name:  c.name,
			Ref:   c.ref,
			Start: c.start,
			Born:  c.current.birth(),
			Phase: phase,
			Stats: stats,
			Edges: edgesOf(c),
		})
	}
	slices.SortFunc(s.Containers, func(a, b Container) int { return cmp.Compare(a.Name, b.Name) })
	return s, ctx.Err()
}

// readLive reads the files of all containers that have some, until ctx ends. It does not hold up events.
func (inv *Inventory) readLive(ctx context.Context) {
	inv.mu.Lock()
	live := make([]*life, 0, len(inv.containers))
	for _, c := range inv.containers {
		if c.goneAt.IsZero() {
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
