// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
)

// Listener is the sockets of one pair of cgroups that listen on one address.
type Listener struct {
	CgroupV2 uint64
	CgroupV1 uint64
	NetNS    uint32

	// Addr is where they are bound, an unspecified address for all of the namespace. It is the zero AddrPort for the
	// overflow listener, which has those of these cgroups that found the table full.
	Addr   netip.AddrPort
	V6Only bool // with an unspecified IPv6 address: IPv4 is not meant
	TGID   int  // of the process that has called listen() last, in the initial PID namespace

	Open       int64         // sockets that listen now
	Queue      uint64        // established connections that wait for accept(), as of the last pass over open sockets
	QueueLimit uint64        // how many may wait
	Drops      uint64        // connections dropped because a queue was full, or memory was short
	Touched    time.Duration // as Edge.Touched, of Open alone
	key        tcpEdgeKey
}

func (l *Listener) decode(k *tcpEdgeKey, v *tcpListener) {
	*l = Listener{
		CgroupV2:   k.Owner.CgroupV2,
		CgroupV1:   k.Owner.CgroupV1,
		NetNS:      k.Netns,
		V6Only:     v.V6only != 0,
		TGID:       int(v.Tgid),
		Open:       v.Open,
		Queue:      uint64(max(v.Queue, 0)),
		QueueLimit: uint64(max(v.QueueLimit, 0)),
		Drops:      v.Drops,
		Touched:    time.Duration(v.TouchedNs),
		key:        *k,
	}
	if k.Kind == tcpEdgeKindEDGE_LISTENER {
		l.Addr = netip.AddrPortFrom(netip.AddrFrom16(k.Addr).Unmap(), k.Port)
	}
}

func (t *tcpTracer) eachListener(fn func(*Listener)) error {
	t.nl = 0
	var l Listener
	for _, m := range []*ebpf.Map{t.objs.Listeners, t.objs.ListenersOverflow} {
		n, err := eachBatch(m, t.keys, t.listeners, func(k *tcpEdgeKey, v *tcpListener) {
			l.decode(k, v)
			fn(&l)
		})
		t.nl += n
		if err != nil {
			return fmt.Errorf("read listeners: %w", err)
		}
	}
	return nil
}

// TakeListener deletes a listener that Read gave without an open socket, and brings it up to date. One that has an open
// socket by now stays.
func (t *Tracer) TakeListener(l *Listener) error {
	m := t.tcp.objs.Listeners
	if l.key.Kind == tcpEdgeKindEDGE_LISTENER_OVERFLOW {
		m = t.tcp.objs.ListenersOverflow
	}
	var v tcpListener
	key := l.key
	err := takeOut(m, &key, &v)
	if err != nil {
		return fmt.Errorf("delete the listener %s: %w", l.Addr, err)
	}
	if v.Open > 0 {
		// Somebody has called listen() meanwhile. What was counted of it in this instant is there already.
		drops := v.Drops
		v.Drops = 0
		if err := m.Update(&key, &v, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("put back the listener %s: %w", l.Addr, err)
		}
		v.Drops = drops
	}
	l.decode(&key, &v)
	return nil
}

// ListenedPorts are the ports on which any socket of this host has listened since the Tracer is there, and those that
// Adopt has found.
type ListenedPorts [65536 / 64]uint64

// Has tells whether p is one of them.
func (l *ListenedPorts) Has(p uint16) bool { return l[p/64]&(1<<(p%64)) != 0 }

// Listened brings ports up to date.
func (t *Tracer) Listened(ports *ListenedPorts) error {
	if t.tcp == nil {
		return nil
	}
	keys := make([]uint32, len(ports))
	var cursor ebpf.MapBatchCursor
	for done := 0; done < len(ports); {
		n, err := t.tcp.objs.Listened.BatchLookup(&cursor, keys[done:], ports[done:], nil)
		done += n
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("read the ports that were listened on: %w", err)
		}
	}
	return nil
}
