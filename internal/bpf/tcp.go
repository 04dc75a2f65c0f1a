// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// tcpTracer has the programs of tcp.bpf.c. Each feature but the first can be missing.
type tcpTracer struct {
	spec *ebpf.CollectionSpec
	objs struct {
		OnTcpState       *ebpf.Program  `ebpf:"on_tcp_state"`
		OnMissedTcpState *ebpf.Program  `ebpf:"on_missed_tcp_state"`
		OnTcpDestroy     *ebpf.Program  `ebpf:"on_tcp_destroy"`
		BSS              *ebpf.Map      `ebpf:".bss"`
		HasTranslation   *ebpf.Variable `ebpf:"has_translations"`
		LiveRTTsN        *ebpf.Variable `ebpf:"live_rtts_n"`
		Sampling         *ebpf.Variable `ebpf:"sampling"`
		PassNS           *ebpf.Variable `ebpf:"pass_ns"`
		Connections      *ebpf.Variable `ebpf:"adopting_connections"`
		tcpMaps
	}
	rtts *ebpf.Memory // of LiveRtts

	programs []*ebpf.Program // those of the optional features
	links    []link.Link
	fold     *link.Iter // nil without FeatureNetworkLive
	adopt    *link.Iter // nil without FeatureNetworkAdopt

	errCilium error // why Cilium's maps are not read

	mu        sync.Mutex // guards what follows, and passes of fold
	keys      []tcpEdgeKey
	values    []tcpEdge
	listeners []tcpListener
	records   []byte
	n, nl     int // entries of edges and listeners seen by the last Read
}

// batchSize bounds the memory for reading tables. A bucket of the kernel's hash table must fit in whole.
const batchSize = 1024

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
	if o.MaxListeners > 0 {
		spec.Maps[tcpMapListeners].MaxEntries = o.MaxListeners
	}
	t := &tcpTracer{
		spec:      spec,
		keys:      make([]tcpEdgeKey, batchSize),
		values:    make([]tcpEdge, batchSize),
		listeners: make([]tcpListener, batchSize),
	}
	if err := t.loadFirst(o.BPFFSRoot); err != nil {
		return nil, err
	}
	if t.rtts, err = t.objs.LiveRtts.Memory(); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if err := t.attach(t.objs.OnTcpState, t.objs.OnMissedTcpState, t.objs.OnTcpDestroy); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *tcpTracer) attach(progs ...*ebpf.Program) error {
	links, err := attach(progs...)
	t.links = append(t.links, links...)
	return err
}

// load loads programs of a feature on the maps that on_tcp_state has. extra may have types that the kernel itself lacks.
func (t *tcpTracer) load(extra []*btf.Spec, names ...string) ([]*ebpf.Program, error) {
	spec := t.spec.Copy()
	spec.Programs = map[string]*ebpf.ProgramSpec{}
	for _, name := range names {
		spec.Programs[name] = t.spec.Programs[name].Copy()
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{ExtraRelocationTargets: extra},
		MapReplacements: map[string]*ebpf.Map{
			".bss":                  t.objs.BSS,
			tcpMapCiliumBackends4:   t.objs.CiliumBackends4,
			tcpMapCiliumBackends6:   t.objs.CiliumBackends6,
			tcpMapCiliumFlows4:      t.objs.CiliumFlows4,
			tcpMapCiliumFlows6:      t.objs.CiliumFlows6,
			tcpMapCiliumSockets4:    t.objs.CiliumSockets4,
			tcpMapCiliumSockets6:    t.objs.CiliumSockets6,
			tcpMapAdoptedPorts:      t.objs.AdoptedPorts,
			tcpMapConns:             t.objs.Conns,
			tcpMapEdges:             t.objs.Edges,
			tcpMapEdgesOverflow:     t.objs.EdgesOverflow,
			tcpMapLastSeen:          t.objs.LastSeen,
			tcpMapListened:          t.objs.Listened,
			tcpMapListeners:         t.objs.Listeners,
			tcpMapListenersOverflow: t.objs.ListenersOverflow,
			tcpMapLiveRtts:          t.objs.LiveRtts,
			tcpMapMptcpListeners:    t.objs.MptcpListeners,
			tcpMapTcpStats:          t.objs.TcpStats,
			tcpMapTranslations:      t.objs.Translations,
		},
	})
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	var progs []*ebpf.Program
	for _, name := range names {
		progs = append(progs, coll.DetachProgram(name))
	}
	t.programs = append(t.programs, progs...)
	return progs, nil
}

// openLive loads the iterator over the sockets that are tracked.
func (t *tcpTracer) openLive() error {
	progs, err := t.load(nil, tcpProgFoldLive)
	if err != nil {
		return err
	}
	t.fold, err = link.AttachIter(link.IterOptions{Program: progs[0], Map: t.objs.Conns})
	return err
}

// openAdopt loads the iterator over the files of all tasks.
func (t *tcpTracer) openAdopt() error {
	progs, err := t.load(nil, tcpProgAdopt)
	if err != nil {
		return err
	}
	t.adopt, err = link.AttachIter(link.IterOptions{Program: progs[0]})
	return err
}

func (t *tcpTracer) openResets() error {
	progs, err := t.load(nil, tcpProgOnSendReset)
	if err != nil {
		return err
	}
	return t.attach(progs...)
}

// openRefusals puts a hook on connect() of all tasks below a directory of the unified hierarchy.
func (t *tcpTracer) openRefusals(cgroupRoot string) error {
	if cgroupRoot == "" {
		return fmt.Errorf("%w: the unified cgroup hierarchy is not mounted", ErrNotSupported)
	}
	progs, err := t.load(nil, tcpProgOnConnect4, tcpProgOnConnect6)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", ErrNotPermitted)
	}
	if err != nil {
		return err
	}
	var links []link.Link
	for i, hook := range []ebpf.AttachType{ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect} {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroupRoot, Attach: hook, Program: progs[i]})
		if err != nil {
			return errors.Join(fmt.Errorf("attach to %s: %w", cgroupRoot, err), closeLinks(links))
		}
		links = append(links, l)
	}
	t.links = append(t.links, links...)
	return nil
}

func (t *tcpTracer) close() error {
	errs := []error{closeLinks(t.links)}
	for _, it := range []*link.Iter{t.fold, t.adopt} {
		if it != nil {
			errs = append(errs, it.Close())
		}
	}
	for _, p := range t.programs {
		errs = append(errs, p.Close())
	}
	for _, p := range []*ebpf.Program{t.objs.OnTcpState, t.objs.OnMissedTcpState, t.objs.OnTcpDestroy} {
		errs = append(errs, p.Close())
	}
	return errors.Join(append(errs, t.objs.BSS.Close(), t.objs.tcpMaps.Close())...)
}

func (t *tcpTracer) stats(s *Stats) {
	for stat, field := range map[tcpTcpStat]*uint64{
		tcpTcpStatTCP_STAT_FOLDED:           &s.EdgesFolded,
		tcpTcpStatTCP_STAT_UNACCOUNTED:      &s.EdgesUnaccounted,
		tcpTcpStatTCP_STAT_UNTRACKED:        &s.Untracked,
		tcpTcpStatTCP_STAT_LISTENERS_FOLDED: &s.ListenersFolded,
		tcpTcpStatTCP_STAT_ADOPTED:          &s.Adopted,
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
	s.Edges, s.Listeners = t.n, t.nl
	t.mu.Unlock()
	s.EdgesMax = int(t.objs.Edges.MaxEntries())
	s.ListenersMax = int(t.objs.Listeners.MaxEntries())
}
