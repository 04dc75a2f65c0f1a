// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/netns"
)

// routesPerPass bounds the questions to the routing tables in one pass.
const routesPerPass = 512

// unroutedEdge is an edge with connects that routing has refused, for a reason that is not known yet.
type unroutedEdge struct {
	edge   *edge
	dst    netip.Addr
	netns  uint32
	places []place
}

// unroutedEdges lists them. mu and edgesMu are held.
func (inv *Inventory) unroutedEdges() []unroutedEdge {
	var list []unroutedEdge
	for i := range inv.table {
		ke := &inv.table[i]
		if ke.Failed[bpf.FailedUnrouted] == 0 || !ke.Destination.IsValid() {
			continue
		}
		c := inv.resolve(ke.CgroupV2, ke.CgroupV1).container()
		if c == nil {
			continue
		}
		e := inv.edgeFor(c, ke)
		if e == nil || e.unrouted != nil {
			continue
		}
		u := unroutedEdge{edge: e, dst: ke.Destination.Addr(), netns: ke.NetNS}
		if c.goneAt.IsZero() {
			u.places = placesOf(c)
		}
		list = append(list, u)
	}
	return list
}

// askRoutes finds out why routing has refused connects. What an edge is told once it keeps, so that no counter goes back.
func (inv *Inventory) askRoutes(ctx context.Context, list []unroutedEdge) {
	open := map[uint32]*netns.Namespace{}
	for i, u := range list {
		why := ConnectNetworkUnreachable // by far the most common, where it cannot be asked
		if i < routesPerPass && ctx.Err() == nil {
			ns, tried := open[u.netns]
			if !tried {
				ns = inv.namespaces.enter(u.netns, inv.pidsOf(u.places))
				open[u.netns] = ns
			}
			if ns != nil {
				why = unroutedError(ns.Route(u.dst))
			}
		}
		u.edge.unrouted = &why
	}
	for _, ns := range open {
		if ns != nil {
			_ = ns.Close()
		}
	}
}

// unroutedError puts what connect() has returned into a kind.
func unroutedError(err error) ConnectError {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EPERM): // not allowed to ask
		return ConnectNetworkUnreachable
	case errors.Is(err, unix.EHOSTUNREACH):
		return ConnectHostUnreachable
	}
	return ConnectOther // prohibited, or not by routing
}
