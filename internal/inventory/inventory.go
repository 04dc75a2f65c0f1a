// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"net/netip"
	"regexp"
	"time"

	"go.uber.org/zap"
)

// Options of an Inventory.
type Options struct {
	CgroupRoot string // where the host's cgroup file systems are mounted

	Include, Exclude []*regexp.Regexp // on the path form; no Include takes all, Exclude wins
	MinAge           time.Duration    // containers younger than this are not given
	SkipSystemUnits  bool             // leave out the housekeeping units that every host has

	// Keep is how long the last totals of a container that is gone are given, and after that again how long it is
	// given as Ended. At least one collection must fit in.
	Keep time.Duration

	Network NetworkOptions
	Logger  *zap.Logger
}

// NetworkOptions of an Inventory.
type NetworkOptions struct {
	Enabled         bool
	MaxEdges        uint32         // capacity of the kernel's table of edges
	MaxDestinations int            // per container, the rest goes to OtherDestination
	TrackPublic     []netip.Prefix // public networks given one by one, the rest goes to PublicDestination
}

// Inventory knows the containers of the host.
type Inventory struct{}

// Open takes hold of the host: it finds the containers that are there, loads the kernel programs and begins to follow
// what comes and goes. A part that the kernel or missing privileges refuse is off, see Status; only a host without any
// cgroup file system is an error.
func Open(_ context.Context, _ Options) (*Inventory, error) { return nil, errors.New("not yet") }

// Close lets go of everything that Open took.
func (*Inventory) Close() error { return nil }

// Snapshot reads all containers. Containers that cannot be read are left out and counted; the error is that of ctx.
// It changes no totals: any number of callers see the same.
func (*Inventory) Snapshot(_ context.Context) (Snapshot, error) { return Snapshot{}, nil }

// Status tells how well the inventory works. It is cheap and safe to call at any time until Close.
func (*Inventory) Status() Status { return Status{} }

// Status of an Inventory: what is on and off, and what was lost.
type Status struct {
	CgroupMode string    // unified, hybrid or legacy
	Features   []Feature // each optional part, on or off

	Containers        int    // live ones
	ReadErrors        uint64 // reads of one container's files that went wrong, those of containers just gone not counted
	EventsLost        uint64 // kernel events that did not fit in the ring buffer; the next walk makes up for them
	EdgesLive         int    // entries in the kernel's table of edges at the last snapshot
	EdgesMax          int
	EdgesFolded       uint64 // connections counted under OtherDestination because the kernel's table was full
	EdgesUnaccounted  uint64 // connections that could not even be counted there
	CgroupsUnresolved uint64 // edges whose cgroup is not known
}

// Feature is an optional part and why it is off.
type Feature struct {
	Name string // such as network or cgroup_events
	Err  error  // nil when on
}
