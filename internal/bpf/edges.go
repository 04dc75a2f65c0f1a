// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Edge is the TCP traffic from the tasks of one pair of cgroups to one destination.
type Edge struct {
	CgroupV2 uint64 // in the unified hierarchy
	CgroupV1 uint64 // in the hierarchy of Options.LegacyController, 0 if there is none
	NetNS    uint32 // inode number of the network namespace

	// Destination is as dialled, IPv4-mapped addresses unmapped. It is the zero AddrPort for the overflow edge, which has
	// the connections of these cgroups that found the table full.
	Destination netip.AddrPort

	Connects      uint64        // handshakes completed
	Failed        uint64        // attempts that ended without one
	ConnectTime   time.Duration // from connect() to the end of the handshake, summed over Connects
	Active        int64         // connections now open
	BytesSent     uint64        // payload; retransmitted bytes count once
	BytesReceived uint64        // payload
	Retransmits   uint64        // segments, those of failed attempts included
	key           tcpEdgeKey
}

// edgeOverflow is EDGE_OVERFLOW of enum edge_kind.
const edgeOverflow = 2

// batchSize bounds the memory for reading edges. A bucket of the kernel's hash table must fit in whole.
const batchSize = 1024

type tcpTracer struct {
	objs struct {
		OnTcpState *ebpf.Program `ebpf:"on_tcp_state"`
		tcpMaps
	}
	spec  *ebpf.CollectionSpec
	links []link.Link
	live  struct {
		FoldLive *ebpf.Program `ebpf:"fold_live"`
	}
	fold *link.Iter // nil without FeatureNetworkLive

	mu     sync.Mutex // guards what follows
	keys   []tcpEdgeKey
	values []tcpEdge
	n      int // entries seen by the last EachEdge
}

func openTCP(o Options) (*tcpTracer, error) {
	spec, err := loadTcp()
	if err != nil {
		return nil, err
	}
	if o.LegacyController != "" {
		subsys, err := subsysID(o.LegacyController)
		if err != nil {
			return nil, err
		}
		if err := spec.Variables[tcpVarV1Subsys].Set(subsys); err != nil {
			return nil, err
		}
	}
	if o.MaxEdges > 0 {
		spec.Maps[tcpMapEdges].MaxEntries = o.MaxEdges
	}
	t := &tcpTracer{spec: spec, keys: make([]tcpEdgeKey, batchSize), values: make([]tcpEdge, batchSize)}
	if err := spec.LoadAndAssign(&t.objs, nil); err != nil {
		return nil, err
	}
	if t.links, err = attach(t.objs.OnTcpState); err != nil {
		return nil, errors.Join(err, t.objs.OnTcpState.Close(), t.objs.tcpMaps.Close())
	}
	return t, nil
}

// openLive loads the iterator over the sockets that on_tcp_state tracks.
func (t *tcpTracer) openLive() error {
	err := t.spec.LoadAndAssign(&t.live, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		tcpMapConns:         t.objs.Conns,
		tcpMapEdges:         t.objs.Edges,
		tcpMapEdgesOverflow: t.objs.EdgesOverflow,
		tcpMapTcpStats:      t.objs.TcpStats,
	}})
	if err != nil {
		return err
	}
	t.fold, err = link.AttachIter(link.IterOptions{Program: t.live.FoldLive, Map: t.objs.Conns})
	return err
}

func (t *tcpTracer) close() error {
	errs := []error{closeLinks(t.links)}
	if t.fold != nil {
		errs = append(errs, t.fold.Close())
	}
	if t.live.FoldLive != nil {
		errs = append(errs, t.live.FoldLive.Close())
	}
	return errors.Join(append(errs, t.objs.OnTcpState.Close(), t.objs.tcpMaps.Close())...)
}

func (t *tcpTracer) stats(s *Stats) {
	for stat, field := range map[tcpTcpStat]*uint64{
		tcpTcpStatTCP_STAT_FOLDED:      &s.EdgesFolded,
		tcpTcpStatTCP_STAT_UNACCOUNTED: &s.EdgesUnaccounted,
		tcpTcpStatTCP_STAT_UNTRACKED:   &s.Untracked,
	} {
		var cpus []uint64
		if err := t.objs.TcpStats.Lookup(uint32(stat), &cpus); err != nil {
			continue
		}
		for _, n := range cpus {
			*field += n
		}
	}
	t.mu.Lock()
	s.Edges = t.n
	t.mu.Unlock()
	s.EdgesMax = int(t.objs.Edges.MaxEntries())
}

// EachEdge brings the totals of open connections up to date and calls fn for each edge. The Edge is reused: fn must not
// keep it. Without FeatureNetwork there are none.
func (t *Tracer) EachEdge(fn func(*Edge)) error {
	if t.tcp == nil {
		return nil
	}
	return t.tcp.each(fn)
}

func (t *tcpTracer) each(fn func(*Edge)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.foldLive(); err != nil {
		return err
	}
	t.n = 0
	for _, m := range []*ebpf.Map{t.objs.Edges, t.objs.EdgesOverflow} {
		if err := t.eachIn(m, fn); err != nil {
			return fmt.Errorf("read edges: %w", err)
		}
	}
	return nil
}

func (t *tcpTracer) foldLive() error {
	if t.fold == nil {
		return nil
	}
	r, err := t.fold.Open()
	if err != nil {
		return fmt.Errorf("fold open connections: %w", err)
	}
	_, err = io.Copy(io.Discard, r) // the program writes nothing: reading runs it
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("fold open connections: %w", err)
	}
	return nil
}

func (t *tcpTracer) eachIn(m *ebpf.Map, fn func(*Edge)) error {
	var cursor ebpf.MapBatchCursor
	var e Edge
	for {
		n, err := m.BatchLookup(&cursor, t.keys, t.values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return err
		}
		for i := range n {
			e.decode(&t.keys[i], &t.values[i])
			fn(&e)
		}
		t.n += n
		if last {
			return nil
		}
	}
}

func (e *Edge) decode(k *tcpEdgeKey, v *tcpEdge) {
	*e = Edge{
		CgroupV2:      k.Owner.CgroupV2,
		CgroupV1:      k.Owner.CgroupV1,
		NetNS:         k.Netns,
		Connects:      v.Connects,
		Failed:        v.Failed,
		ConnectTime:   time.Duration(v.ConnectNs),
		Active:        v.Active,
		BytesSent:     v.BytesSent,
		BytesReceived: v.BytesReceived,
		Retransmits:   v.Retransmits,
		key:           *k,
	}
	if k.Kind != edgeOverflow {
		e.Destination = netip.AddrPortFrom(netip.AddrFrom16(k.Addr).Unmap(), k.Port)
	}
}

// Forget deletes an edge that EachEdge gave. What connections of its do later makes a new edge, which begins at zero.
func (t *Tracer) Forget(e *Edge) error {
	m := t.tcp.objs.Edges
	if !e.Destination.IsValid() {
		m = t.tcp.objs.EdgesOverflow
	}
	if err := m.Delete(&e.key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete the edge to %s: %w", e.Destination, err)
	}
	return nil
}
