// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Edge is the TCP traffic between the tasks of one pair of cgroups and one address.
type Edge struct {
	CgroupV2 uint64 // in the unified hierarchy
	CgroupV1 uint64 // in the hierarchy of Options.LegacyController, 0 if there is none
	NetNS    uint32 // inode number of the network namespace
	Inbound  bool   // the tasks were listening; else they have called connect()

	// Destination of an outbound edge is as dialled, IPv4-mapped addresses unmapped. It is the zero AddrPort for the
	// overflow edge, which has the connections of these cgroups that found the table full.
	Destination netip.AddrPort
	// Actual is the destination after address translation, equal to Destination where there is none.
	Actual netip.AddrPort
	// Local of an inbound edge is the address that the peers have reached, zero for the overflow edge.
	Local netip.AddrPort

	Connects       uint64              // handshakes completed
	Failed         [NumFailures]uint64 // attempts that ended without one, by Failure; outbound, where Actual is Destination
	ConnectTime    time.Duration       // from connect() to the end of the handshake, summed over outbound Connects
	Active         int64               // connections now open
	BytesSent      uint64              // payload; retransmitted bytes count once
	BytesReceived  uint64              // payload
	Retransmits    uint64              // segments, those of failed attempts included
	ResetsSent     uint64              // of connections that were established
	ResetsReceived uint64              // likewise
	RTT            [NumRTTBuckets]uint64
	RTTSum         time.Duration // over the samples in RTT
	Touched        time.Duration // the begin of the last Read before it changed, on the clock of Now; 0 for before any
	key            tcpEdgeKey
}

// Failure is why a connect failed.
type Failure uint8

// The kinds of Failure, enum failure of the programs.
const (
	FailedRefused Failure = iota
	FailedTimeout
	FailedReset
	FailedHostUnreachable
	FailedNetworkUnreachable
	FailedAborted  // given up by the client before there was an answer
	FailedOther    // such as no free source port
	FailedUnrouted // refused by routing, or by a cgroup program of others

	NumFailures = len(tcpEdge{}.Failed)
)

// FailedTotal is the sum over all kinds.
func (e *Edge) FailedTotal() (n uint64) {
	for _, f := range e.Failed {
		n += f
	}
	return n
}

// NumRTTBuckets is the number of buckets of Edge.RTT.
const NumRTTBuckets = len(tcpEdge{}.Rtt)

// RTTBounds are the upper bounds, inclusive, of the buckets of Edge.RTT but the last.
var RTTBounds = [NumRTTBuckets - 1]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second,
}

// Now reads the clock of Edge.Touched and Listener.Touched, CLOCK_MONOTONIC.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// LiveRTT is the smoothed round-trip time of one open outbound connection.
type LiveRTT struct {
	CgroupV2, CgroupV1 uint64
	NetNS              uint32
	Addr               netip.Addr // of the actual destination
	RTT                time.Duration
}

// Pass says what Read shall give. What its functions are given is reused: they must not keep it.
type Pass struct {
	Edge     func(*Edge)
	Listener func(*Listener)
	// Quick leaves the totals of open connections as the Read before it did: what is closed is right.
	Quick bool
	// LiveRTT makes this pass one that samples the round-trip times of open connections, into Edge.RTT and one by one:
	// of more than 65,536 connections any 65,536.
	LiveRTT func(*LiveRTT)
}

// Read brings the totals of open connections up to date and gives what Pass asks for. Without FeatureNetwork there is
// nothing.
func (t *Tracer) Read(p Pass) error {
	if t.tcp == nil {
		return nil
	}
	return t.tcp.read(p)
}

// EachEdge is a Read of the edges alone.
func (t *Tracer) EachEdge(fn func(*Edge)) error { return t.Read(Pass{Edge: fn}) }

func (t *tcpTracer) read(p Pass) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.foldLive(p); err != nil {
		return err
	}
	if p.Edge != nil {
		if err := t.eachEdge(p.Edge); err != nil {
			return err
		}
	}
	if p.Listener != nil {
		return t.eachListener(p.Listener)
	}
	return nil
}

func (t *tcpTracer) foldLive(p Pass) error {
	var sampling uint32
	if p.LiveRTT != nil {
		sampling = 1
	}
	err := errors.Join(
		t.objs.PassNS.Set(uint64(Now())),
		t.objs.LiveRTTsN.Set(uint32(0)),
		t.objs.Sampling.Set(sampling),
	)
	if err == nil && t.fold != nil && !p.Quick {
		err = runIter(t.fold)
	}
	if err == nil && p.LiveRTT != nil {
		err = t.eachLiveRTT(p.LiveRTT)
	}
	if err != nil {
		return fmt.Errorf("fold open connections: %w", err)
	}
	return nil
}

// runIter runs a program that writes nothing.
func runIter(it *link.Iter) error {
	r, err := it.Open()
	if err != nil {
		return err
	}
	for {
		// The kernel breaks off after a million objects, and goes on at the next read.
		_, err = io.Copy(io.Discard, r)
		if !errors.Is(err, unix.EAGAIN) {
			return errors.Join(err, r.Close())
		}
	}
}

func (t *tcpTracer) eachLiveRTT(fn func(*LiveRTT)) error {
	var n uint32
	if err := t.objs.LiveRTTsN.Get(&n); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	const size = 40 // of struct live_rtt
	if len(t.records) < int(n)*size {
		t.records = make([]byte, int(n)*size)
	}
	records := t.records[:int(n)*size]
	if _, err := t.rtts.ReadAt(records, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var r LiveRTT
	for ; len(records) >= size; records = records[size:] {
		r = decodeLiveRTT([size]byte(records))
		fn(&r)
	}
	return nil
}

// decodeLiveRTT reads a struct live_rtt.
func decodeLiveRTT(rec [40]byte) LiveRTT {
	ne := binary.NativeEndian
	return LiveRTT{
		CgroupV2: ne.Uint64(rec[0:]),
		CgroupV1: ne.Uint64(rec[8:]),
		Addr:     netip.AddrFrom16([16]byte(rec[16:32])).Unmap(),
		NetNS:    ne.Uint32(rec[32:]),
		RTT:      time.Duration(ne.Uint32(rec[36:])) * time.Microsecond,
	}
}

func (t *tcpTracer) eachEdge(fn func(*Edge)) error {
	t.n = 0
	var e Edge
	for _, m := range []*ebpf.Map{t.objs.Edges, t.objs.EdgesOverflow} {
		n, err := eachBatch(m, t.keys, t.values, func(k *tcpEdgeKey, v *tcpEdge) {
			e.decode(k, v)
			fn(&e)
		})
		t.n += n
		if err != nil {
			return fmt.Errorf("read edges: %w", err)
		}
	}
	return nil
}

// eachBatch calls fn for each entry of m and returns their number.
func eachBatch[K, V any](m *ebpf.Map, keys []K, values []V, fn func(*K, *V)) (total int, err error) {
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return total, err
		}
		for i := range n {
			fn(&keys[i], &values[i])
		}
		total += n
		if last {
			return total, nil
		}
	}
}

func (e *Edge) decode(k *tcpEdgeKey, v *tcpEdge) {
	*e = Edge{
		CgroupV2:       k.Owner.CgroupV2,
		CgroupV1:       k.Owner.CgroupV1,
		NetNS:          k.Netns,
		Connects:       v.Connects,
		Failed:         v.Failed,
		ConnectTime:    time.Duration(v.ConnectNs),
		Active:         v.Active,
		BytesSent:      v.BytesSent,
		BytesReceived:  v.BytesReceived,
		Retransmits:    v.Retransmits,
		ResetsSent:     v.ResetsSent,
		ResetsReceived: v.ResetsReceived,
		RTT:            v.Rtt,
		RTTSum:         time.Duration(v.RttUs) * time.Microsecond,
		Touched:        time.Duration(v.TouchedNs),
		key:            *k,
	}
	addr := netip.AddrPortFrom(netip.AddrFrom16(k.Addr).Unmap(), k.Port)
	switch k.Kind {
	case tcpEdgeKindEDGE_OUTBOUND:
		e.Destination, e.Actual = addr, addr
		if k.ActualPort != 0 {
			e.Actual = netip.AddrPortFrom(netip.AddrFrom16(k.Actual).Unmap(), k.ActualPort)
		}
	case tcpEdgeKindEDGE_INBOUND:
		e.Inbound = true
		e.Local = addr
	case tcpEdgeKindEDGE_INBOUND_OVERFLOW:
		e.Inbound = true
	}
}

// Take deletes an edge that Read gave, and brings it up to date with what was counted until then. What connections of its
// do later makes a new edge, which begins at zero.
func (t *Tracer) Take(e *Edge) error {
	m := t.tcp.objs.Edges
	switch e.key.Kind {
	case tcpEdgeKindEDGE_OUTBOUND_OVERFLOW, tcpEdgeKindEDGE_INBOUND_OVERFLOW:
		m = t.tcp.objs.EdgesOverflow
	}
	var v tcpEdge
	key := e.key
	if err := takeOut(m, &key, &v); err != nil {
		return fmt.Errorf("delete the edge to %s: %w", e.Destination, err)
	}
	e.decode(&key, &v)
	return nil
}

// takeOut deletes an entry and gives its last value. v stays zero where there is none any more.
func takeOut[K, V any](m *ebpf.Map, key *K, v *V) error {
	err := m.LookupAndDelete(key, v)
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		// Hash tables have it since Linux 5.14.
		if err = m.Lookup(key, v); err == nil {
			err = m.Delete(key)
		}
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// Adopt takes in the connections and listening sockets of all processes in our PID namespace that were there before the
// Tracer: their bytes count from now on. It is to be called once, after AddTranslation. Without FeatureNetworkAdopt it
// does nothing.
func (t *Tracer) Adopt() error {
	if t.tcp == nil || t.tcp.adopt == nil {
		return nil
	}
	for pass := range uint32(2) { // those that listen, then the others
		err := t.tcp.objs.Connections.Set(pass)
		if err == nil {
			err = runIter(t.tcp.adopt)
		}
		if err != nil {
			return fmt.Errorf("adopt open connections: %w", err)
		}
	}
	return nil
}
