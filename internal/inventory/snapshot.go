// SPDX-License-Identifier: Apache-2.0

package inventory

import (
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
