// SPDX-License-Identifier: Apache-2.0

// Package bpf loads, attaches and reads our kernel programs. It turns kernel memory into Go values and knows cgroup ids,
// but no containers.
//
// The programs are BTF-typed tracepoints (tp_btf) and iterators: no kprobe, no tracefs, no debugfs. They need Linux 5.12
// with BTF (CONFIG_DEBUG_INFO_BTF), CAP_BPF and CAP_PERFMON. Each feature is loaded on its own; one that the kernel
// refuses is off and says why, the others run.
package bpf

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Names of the features, as Features gives them.
const (
	FeatureCgroupEvents = "cgroup_events" // CgroupEvents
	FeatureTasks        = "tasks"         // ReadUsages and ProcessExits
	FeatureDiskIO       = "disk_io"       // ReadDiskIO; listed only where Options ask for it
	FeatureFileWrites   = "file_writes"   // FileWrites; listed only where Options ask for it
	FeatureNetwork      = "network"       // Read
	FeatureNetworkLive  = "network_live"  // Read has the bytes of connections that are still open
	// FeatureNetworkAdopt is Adopt: connections that are older than the Tracer.
	FeatureNetworkAdopt = "network_adopt"
	// FeatureNetworkRefusals counts connects that are refused by routing, before there is any packet. It needs
	// CAP_NET_ADMIN, and Options.CgroupRoot.
	FeatureNetworkRefusals = "network_refusals"
	// FeatureNetworkResets is Edge.ResetsSent.
	FeatureNetworkResets = "network_resets"
	// FeatureNetworkNAT is Edge.Actual. It is off where the kernel has no connection tracking.
	FeatureNetworkNAT = "network_nat"
	// FeatureNetworkCilium is Edge.Actual, and Edge.Destination as dialled, behind the services of Cilium. It is listed only
	// where maps of Cilium are pinned when the Tracer is opened.
	FeatureNetworkCilium = "network_cilium"
)

// Options of a Tracer.
type Options struct {
	// LegacyController is the v1 controller by which containers are told apart, "" on a pure v2 host.
	LegacyController string
	// ProcRoot is where a proc file system is mounted; "" means /proc.
	ProcRoot string
	// DiskIO counts what is read from and written to disks. Where block I/O is accounted by cgroup v2 its io.stat tells the same.
	DiskIO bool
	// MaxDiskIOs is the capacity of the table of cgroups and disks; 0 keeps the default of the program.
	MaxDiskIOs uint32
	// FileWrites tells which files are written to.
	FileWrites bool
	// Network counts TCP connections.
	Network bool
	// MaxEdges is the capacity of the table of edges; 0 keeps the default of the program.
	MaxEdges uint32
	// MaxListeners is the capacity of the table of listeners; 0 keeps the default of the program.
	MaxListeners uint32
	// CgroupRoot is where the unified hierarchy is mounted; "" for nowhere.
	CgroupRoot string
	// BPFFSRoot is where the BPF file system is mounted in which Cilium pins its maps; "" means /sys/fs/bpf.
	BPFFSRoot string
}

// Tracer holds the loaded programs. Its methods are safe for concurrent use.
type Tracer struct {
	mu       sync.Mutex
	features []Feature // guarded by mu once Open has returned

	cgroups *cgroupTracer // nil without FeatureCgroupEvents
	tasks   *taskTracer   // nil without FeatureTasks
	io      *ioTracer     // nil without FeatureDiskIO
	files   *fileTracer   // nil without FeatureFileWrites
	tcp     *tcpTracer    // nil without FeatureNetwork
}

// Feature is a part of the Tracer and, if it is off, the reason.
type Feature struct {
	Name string
	Err  error
}

// Stats are the losses of a Tracer and how full its tables are.
type Stats struct {
	EventsLost uint64 // cgroup events that did not fit in the ring buffer
	ExitsLost  uint64 // ProcessExits that did not

	Usages           int    // entries in the table of usages at the last ReadUsages
	UsagesMax        int    // its capacity
	TasksUnaccounted uint64 // tasks whose times were lost because that table was full
	TasksUnknown     uint64 // tasks whose times will not be split if they move to another cgroup
	DelayAnomalies   uint64 // times left out because they were longer than the life of the task

	DiskIOs                int    // entries in the table of DiskIO at the last ReadDiskIO
	DiskIOsMax             int    // its capacity
	DiskIOUnaccounted      uint64 // operations that were lost because that table was full
	DiskIOUnaccountedBytes uint64 // their bytes
	DiskIOMissed           uint64 // operations of anybody that the kernel did not run our programs for

	FileWritesLost    uint64 // FileWrites that did not fit in the ring buffer
	FileWritesSkipped uint64 // those that were not told because there were too many at a time

	Edges    int // entries in the table of edges at the last Read
	EdgesMax int // its capacity

	Listeners    int // entries in the table of listeners at the last Read
	ListenersMax int // its capacity

	EdgesFolded      uint64 // connections counted in an overflow edge because the table was full
	EdgesUnaccounted uint64 // changes of connections lost because the overflow table was full too
	ListenersFolded  uint64 // listening sockets counted in an overflow listener because the table was full
	Untracked        uint64 // sockets lost because the kernel had no memory for their storage
	Adopted          uint64 // sockets that Adopt took in
}

// Open loads what the kernel takes. It does not fail: Features tells what is on. Close must be called.
func Open(o Options) *Tracer {
	t := &Tracer{}
	var err error

	t.cgroups, err = openCgroups(o)
	t.add(FeatureCgroupEvents, err)
	t.tasks, err = openTasks(o)
	t.add(FeatureTasks, err)
	if o.DiskIO {
		t.io, err = openIO(o)
		t.add(FeatureDiskIO, err)
	}
	if o.FileWrites {
		t.files, err = openFiles(o)
		t.add(FeatureFileWrites, err)
	}
	if !o.Network {
		return t
	}
	t.tcp, err = openTCP(o)
	t.add(FeatureNetwork, err)
	if err != nil {
		return t
	}
	t.add(FeatureNetworkLive, t.tcp.openLive())
	t.add(FeatureNetworkAdopt, t.tcp.openAdopt())
	t.add(FeatureNetworkRefusals, t.tcp.openRefusals(o.CgroupRoot))
	t.add(FeatureNetworkResets, t.tcp.openResets())
	t.add(FeatureNetworkNAT, t.tcp.openNAT())
	if !errors.Is(t.tcp.errCilium, errNoCilium) {
		t.add(FeatureNetworkCilium, t.tcp.errCilium)
	}
	return t
}

func (t *Tracer) add(name string, err error) {
	t.features = append(t.features, Feature{Name: name, Err: explain(err)})
}

// Features lists what Open tried, in the order of loading.
func (t *Tracer) Features() []Feature {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.features)
}

// Stats is cheap enough for each scrape.
func (t *Tracer) Stats() Stats {
	var s Stats
	if t.cgroups != nil {
		t.cgroups.stats(&s)
	}
	if t.tasks != nil {
		t.tasks.stats(&s)
	}
	if t.io != nil {
		t.io.stats(&s)
	}
	if t.files != nil {
		t.files.stats(&s)
	}
	if t.tcp != nil {
		t.tcp.stats(&s)
	}
	return s
}

// Close detaches and frees the programs and ends CgroupEvents, ProcessExits and FileWrites.
func (t *Tracer) Close() error {
	var errs []error
	if t.cgroups != nil {
		errs = append(errs, t.cgroups.close())
	}
	if t.tasks != nil {
		errs = append(errs, t.tasks.close())
	}
	if t.io != nil {
		errs = append(errs, t.io.close())
	}
	if t.files != nil {
		errs = append(errs, t.files.close())
	}
	if t.tcp != nil {
		errs = append(errs, t.tcp.close())
	}
	return errors.Join(errs...)
}

// attach returns the links in the order of progs. They must stay referenced: the kernel detaches a program when the
// garbage collector closes its link.
func attach(progs ...*ebpf.Program) ([]link.Link, error) {
	var links []link.Link
	for _, p := range progs {
		l, err := link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s: %w", p, err), closeLinks(links))
		}
		links = append(links, l)
	}
	return links, nil
}

func closeLinks(links []link.Link) error {
	var errs []error
	for _, l := range links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
