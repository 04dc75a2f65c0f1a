// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/netns"
)

const (
	// addressesLast is how long the addresses of a network namespace are taken for granted.
	addressesLast = 30 * time.Second
	// namespaceKept is how long they are kept when nobody asks for them.
	namespaceKept = 10 * time.Minute
	// pidsAsked is how many processes are asked whether they are inside.
	pidsAsked = 8
)

// namespaces knows the addresses of network namespaces through processes that are inside. It is not safe for concurrent
// use.
type namespaces struct {
	procRoot string
	host     uint32 // the number of the host's namespace
	byID     map[uint32]*namespace

	translated map[uint32]bool // those whose translations were read
}

type namespace struct {
	pid     int // a process inside, 0 for none known
	addrs   []netip.Addr
	readAt  time.Time
	askedAt time.Time
}

// addresses returns those of a namespace as known at now, nil if no process is known to be inside. pids are asked for
// processes that may be.
func (ns *namespaces) addresses(id uint32, now time.Time, pids func() []int) []netip.Addr {
	n := ns.byID[id]
	if n == nil {
		n = &namespace{}
		ns.byID[id] = n
	}
	n.askedAt = now
	if n.pid != 0 && !ns.isInside(id, n.pid) {
		n.pid, n.readAt = 0, time.Time{} // its number may be that of another namespace by now
	}
	if !n.readAt.IsZero() && now.Sub(n.readAt) <= addressesLast {
		return n.addrs
	}
	n.readAt = now
	if ns.read(id, n, n.pid) || id == ns.host && ns.read(id, n, 1) {
		return n.addrs
	}
	some := pids()
	for _, pid := range some[:min(len(some), pidsAsked)] {
		if ns.read(id, n, pid) {
			break
		}
	}
	return n.addrs // those known before, if nobody is left who could be asked
}

func (ns *namespaces) read(id uint32, n *namespace, pid int) bool {
	if pid <= 0 || !ns.isInside(id, pid) {
		return false
	}
	addrs, err := netns.Addresses(ns.procRoot, pid)
	if errors.Is(err, fs.ErrNotExist) {
		return false // the process has gone
	}
	// After another error, such as of a namespace with more routes than we read, what there is is as good as it gets.
	n.pid, n.addrs = pid, addrs
	return true
}

// isInside tells whether a process is in a namespace. Where that may not be looked at, it is believed.
func (ns *namespaces) isInside(id uint32, pid int) bool {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(ns.procRoot, strconv.Itoa(pid), "ns/net"), &st)
	if err == nil {
		return uint32(st.Ino) == id //nolint:gosec // the kernel keeps 32 bits
	}
	_, gone := os.Stat(filepath.Join(ns.procRoot, strconv.Itoa(pid)))
	return gone == nil
}

func (ns *namespaces) forgetUnasked(now time.Time) {
	for id, n := range ns.byID {
		if now.Sub(n.askedAt) > namespaceKept {
			delete(ns.byID, id)
		}
	}
}

// enter opens a namespace by way of a process inside.
func (ns *namespaces) enter(id uint32, pids []int) *netns.Namespace {
	for _, pid := range pids[:min(len(pids), pidsAsked)] {
		n, err := netns.Open(ns.procRoot, pid)
		if err != nil {
			continue
		}
		if n.ID() == id {
			return n
		}
		_ = n.Close()
	}
	return nil
}

// pidsOf returns some processes of a container. No lock is needed: life.top is not.
func (inv *Inventory) pidsOf(places []place) []int {
	for _, p := range places {
		if pids, err := inv.fs.PIDs(p.hierarchy, p.path); err == nil && len(pids) > 0 {
			return pids
		}
	}
	return nil
}

// placesOf lists the container's own directories that exist. mu is held.
func placesOf(c *container) []place {
	var places []place
	for _, d := range c.current.top {
		if d != nil && d.deadAt.IsZero() {
			places = append(places, d.place)
		}
	}
	return places
}
