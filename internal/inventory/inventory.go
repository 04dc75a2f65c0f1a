// SPDX-License-Identifier: Apache-2.0

// Package inventory knows which containers and system services live on this host and what they have used.
//
// It joins the cgroup tree with what the kernel programs count, and is the sole owner of that state. Containers are found
// by walking the tree once and then by kernel events; a slow walk makes up for what events might miss. Whoever wants to
// know takes a Snapshot.
//
// A container is known by its name. When its cgroup is replaced under the same name, as systemd and Docker do at a
// restart, it stays the same container and its totals go on from where they were.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/apptype"
	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logfiles"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logs"
	"github.com/ebpfcontainer/ebpfcontainer/internal/mounts"
	"github.com/ebpfcontainer/ebpfcontainer/internal/runtimes"
)

// Options of an Inventory.
type Options struct {
	CgroupRoot string // where the host's cgroup file systems are mounted
	ProcRoot   string // where the host's proc file system is mounted; "" means /proc
	BPFFSRoot  string // where the host's BPF file system is mounted; "" means /sys/fs/bpf

	Include, Exclude []*regexp.Regexp // on the path form; no Include takes all, Exclude wins
	MinAge           time.Duration    // containers younger than this are not given
	SkipSystemUnits  bool             // leave out the housekeeping units that every host has

	// NameIsIdentity says that nothing but the path form will tell containers apart. One that comes after another with its
	// name is then the same container with one more life: its totals go on. Of two at a time the later keeps the path form
	// with its id. Else containers with different ids are different ones, whatever they are called.
	NameIsIdentity bool
	Runtimes       RuntimesOptions
	Disks          DisksOptions
	Logs           LogsOptions

	// Keep is how long the last totals of a container that is gone are given, and after that again how long it is
	// given as Ended. At least one collection must fit in.
	Keep time.Duration

	// EnableDelayAccounting switches the kernel's delay accounting on for the whole host, where it is off.
	EnableDelayAccounting bool

	Network NetworkOptions
	Latency LatencyOptions
	Logger  *zap.Logger
}

// RuntimesOptions of an Inventory.
type RuntimesOptions struct {
	Enabled bool   // ask the host's container runtimes, and systemd, for names
	Root    string // where the host's root file system is seen; "" means /
	// Sockets, paths on the host, are asked instead of the usual ones of a family: docker, podman, cri, containerd, systemd.
	Sockets map[string][]string
}

// DisksOptions of an Inventory.
type DisksOptions struct {
	Enabled bool   // give the file systems that containers write to
	Tmpfs   bool   // those in memory as well
	Root    string // where the host's root file system is seen; "" means /
	SysRoot string // where the host's sys file system is mounted; "" means /sys
}

// NetworkOptions of an Inventory.
type NetworkOptions struct {
	Enabled         bool
	MaxEdges        uint32         // capacity of the kernel's table of edges
	MaxDestinations int            // per container, the rest goes to OtherDestination; 0 means no limit
	MaxListeners    int            // per container, the rest goes to OtherDestination; 0 means no limit
	TrackPublic     []netip.Prefix // public networks given one by one, the rest goes to PublicDestination

	// EphemeralPorts are no destinations of their own, unless something on this host was seen listening on them, and no
	// listeners. Unset means the host's net.ipv4.ip_local_port_range.
	EphemeralPorts PortRange
	Zones          ZonesOptions
	// IdleTimeout ends what has had neither an open connection nor a change for so long; 0 means never.
	IdleTimeout time.Duration
}

// PortRange is a range of ports, both ends included; an empty one has First after Last.
type PortRange struct {
	First, Last uint16
	Set         bool
}

// LatencyOptions of an Inventory.
type LatencyOptions struct {
	ICMP bool // send echo requests to destinations without an open connection
}

// Names of the features that are the inventory's own; those of package bpf come beside them.
const (
	// FeatureHostNetwork tells connections over loopback in the host's network namespace from those inside a container's.
	FeatureHostNetwork = "host_network_namespace"
	// FeatureConntrack finds the real peers of connections that are older than the kernel programs.
	FeatureConntrack = "conntrack"
	// FeatureDelayAccounting is the kernel's own accounting of all delays but that of the CPU.
	FeatureDelayAccounting = "delay_accounting"
	// FeatureTaskstats sums up delays over taskstats. There is one only where bpf.FeatureTasks is off.
	FeatureTaskstats = "taskstats"
)

// kernel is what our programs give; tests have another.
type kernel interface {
	CgroupEvents(fn func(bpf.CgroupEvent)) error
	ReadUsages(fn func(*bpf.Usage)) error
	TakeUsage(*bpf.Usage) error
	ProcessExits(fn func(bpf.ProcessExit)) error
	DelaysTold() [bpf.NumDelays]bool
	ReadDiskIO(fn func(*bpf.DiskIO)) error
	TakeDiskIO(*bpf.DiskIO) error
	Taskstats(onLost func(uint64)) (taskSource, error)
	Read(bpf.Pass) error
	Listened(*bpf.ListenedPorts) error
	FileWrites(fn func(bpf.FileWrite)) error
	Take(*bpf.Edge) error
	TakeListener(*bpf.Listener) error
	AddTranslation(source, destination, actual netip.AddrPort) error
	Adopt() error
	RetryNAT()
	Features() []bpf.Feature
	Stats() bpf.Stats
	Close() error
}

// Inventory knows the containers of the host. Its methods are safe for concurrent use.
type Inventory struct {
	opts   Options
	log    *zap.Logger
	fs     *cgroups.FS
	kernel kernel

	directory directory      // nil where no runtime is to be asked
	mounts    *mounts.Reader // nil where file systems are not to be given
	logs      *logs.Logs     // nil where logs are not to be followed
	zones     *zones
	logFiles  *logfiles.Finder // nil where no files are to be
	logsSince time.Time        // files that are younger are read from their beginning
	now       func() time.Time

	features   []Feature  // our own
	hasTasks   bool       // the kernel program that accounts tasks is there
	taskstats  *taskstats // nil while hasTasks, and where it cannot be had
	hostNetNS  uint32
	ephemeral  PortRange
	legacyOnly bool // no v2 hierarchy is mounted

	cancel     context.CancelFunc
	maintainer sync.WaitGroup
	follower   sync.WaitGroup
	programs   programs
	rewalk     chan struct{} // asks for a walk soon
	born       chan struct{} // tells of a new life
	logNews    chan struct{} // tells of logs to follow

	mu            sync.Mutex // guards what follows; never held while a file is read
	hasEvents     bool       // the kernel tells of cgroups
	watching      bool       // the first walk is done
	eventPathsOK  [2]bool    // by hierarchy: paths of events begin at the directory that is mounted
	seq           uint64     // grows with each change of dirs
	dirs          map[cgroups.ID]*dir
	places        map[place]*container       // of the containers' own directories that exist
	containers    map[string]*container      // by key
	asked         map[cgroups.Ref]*container // those that the runtimes were asked for
	over          []*life                    // to be closed by maintain
	status        Status                     // the counters
	eventsEnd     <-chan struct{}            // closed when nobody follows any more
	events        chan Event                 // nil while nobody follows
	followed      chan struct{}              // closed when somebody follows for the first time
	strangeExits  []strangeExit
	strangeWrites []strangeWrite
	logOwners     map[*logs.Owner]*container
	logsOver      []*logs.Owner // to be closed by passLogs
	logsGone      []goneLog     // to be let go of by passLogs
	delaysTold    [bpf.NumDelays]bool

	accountsDelays bool  // the kernel's accounting is on
	accountingOff  error // why it is not

	tasksMu    sync.Mutex // taken before mu: one pass over the kernel's usages at a time; guards what follows
	usages     map[[2]uint64]*usage
	usageTable []bpf.Usage // the kernel's, of the last pass
	usageError string      // of the last pass that went wrong: each kind is said once
	diskUses   map[diskKey]*diskUse
	diskTable  []bpf.DiskIO // the kernel's, of the last pass
	diskError  string

	edgesMu    sync.Mutex // taken before mu: one pass over the kernel's tables at a time; guards what follows and all traffic
	table      []bpf.Edge // the kernel's, of the last pass
	readError  string     // of the last pass that went wrong: each kind is said once
	sums       sums
	strange    map[[2]uint64]time.Time // ids of cgroups that were looked for in vain, and when
	listening  []bpf.Listener
	heard      []listening // what the last pass has made of listening
	listened   bpf.ListenedPorts
	rtts       []bpf.LiveRTT // of the last pass that asked for them
	namespaces namespaces
	proxies    proxies
}

// Status of an Inventory: what is on and off, and what was lost.
type Status struct {
	CgroupMode string    // unified, hybrid or legacy
	Features   []Feature // each optional part, on or off

	Containers        int    // live ones
	ReadErrors        uint64 // reads of one container's files that went wrong; a container just gone is no error
	WalkErrors        uint64 // walks of the cgroup tree that did not see all of it
	EventsLost        uint64 // kernel events that did not fit in the ring buffer; the next walk makes up for them
	EventsDropped     uint64 // exits and OOM kills of which no record could be given; they are counted all the same
	MessagesDropped   uint64 // messages of logs of which no record could be given; they are counted all the same
	UsagesLive        int    // entries in the kernel's table of usages at the last snapshot
	UsagesMax         int
	TasksUnaccounted  uint64 // tasks whose times were lost: that table was full, or taskstats does not tell of them or whose they were
	TasksUnknown      uint64 // tasks whose times are not split if they move to another cgroup
	DelayAnomalies    uint64 // delays left out because they were longer than the life of the task
	EdgesLive         int    // entries in the kernel's table of edges at the last snapshot
	EdgesMax          int
	EdgesFolded       uint64 // connections counted under OtherDestination because the kernel's table was full
	EdgesUnaccounted  uint64 // connections that could not even be counted there
	ListenersLive     int    // entries in the kernel's table of listeners at the last snapshot
	ListenersMax      int
	ListenersFolded   uint64 // listening sockets counted under OtherDestination because that table was full
	SocketsAdopted    uint64 // connections and listeners that were there before the kernel programs
	CgroupsUnresolved uint64 // cgroups that are not in the tree, whose edges were dropped
	DiskIOLive        int    // entries in the kernel's table of disk I/O at the last snapshot
	DiskIOMax         int
	DiskIOUnaccounted uint64 // operations that did not fit in it, or that the kernel did not run our programs for
	MountsSkipped     uint64 // sizes of file systems not given because they did not answer in time
	FileWritesLost    uint64 // first writes to files of which the kernel could not tell; what is held open is found all the same
	LogFilesSkipped   uint64 // log files that are not followed because their container has too many
	ZonesErrors       uint64 // times that the file of zones could not be read again
	LogFilesUnseen    uint64 // looks at the files of a process that were not permitted

	Logs LogStats

	Runtimes []RuntimeStatus // those that are or were there, by name
}

// RuntimeStatus is how well a kind of runtime answers: docker, podman, cri, containerd or systemd.
type RuntimeStatus struct {
	Name      string
	Connected bool   // one of this kind could be asked when it was asked last
	Errors    uint64 // questions not answered
}

// Feature is an optional part and why it is off.
type Feature struct {
	Name string // such as network or cgroup_events
	Err  error  // nil when on
}

// Open takes hold of the host: it finds the containers that are there, loads the kernel programs and begins to follow
// what comes and goes. A part that the kernel or missing privileges refuse is off, see Status; only a host without any
// cgroup file system is an error. ctx bounds Open alone.
func Open(ctx context.Context, opts Options) (*Inventory, error) {
	fs, err := cgroups.Open(opts.CgroupRoot)
	if err != nil {
		return nil, err
	}
	k := bpf.Open(bpf.Options{
		LegacyController: fs.LegacyController(),
		ProcRoot:         opts.ProcRoot,
		Network:          opts.Network.Enabled,
		MaxEdges:         opts.Network.MaxEdges,
		CgroupRoot:       fs.UnifiedDir(),
		BPFFSRoot:        opts.BPFFSRoot,
		DiskIO:           opts.Disks.Enabled && !fs.HasIOController(),
		FileWrites:       opts.Logs.Enabled && len(opts.Logs.Roots) > 0,
	})
	return open(ctx, opts, fs, host{k, opts.ProcRoot}, openRuntimes, time.Now)
}

func openRuntimes(o runtimes.Options) directory { return runtimes.Open(o) }

func open(
	ctx context.Context, opts Options, fs *cgroups.FS, k kernel, openDirectory func(runtimes.Options) directory, now func() time.Time,
) (*Inventory, error) {
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.ProcRoot == "" {
		opts.ProcRoot = "/proc"
	}
	inv := &Inventory{
		opts:       opts,
		log:        opts.Logger,
		fs:         fs,
		kernel:     k,
		now:        now,
		rewalk:     make(chan struct{}, 1),
		born:       make(chan struct{}, 1),
		logNews:    make(chan struct{}, 1),
		followed:   make(chan struct{}),
		logOwners:  map[*logs.Owner]*container{},
		legacyOnly: fs.Mode() == cgroups.ModeLegacy,
		dirs:       map[cgroups.ID]*dir{},
		places:     map[place]*container{},
		containers: map[string]*container{},
		asked:      map[cgroups.Ref]*container{},
		usages:     map[[2]uint64]*usage{},
		diskUses:   map[diskKey]*diskUse{},
	}
	for _, f := range k.Features() {
		switch f.Name {
		case bpf.FeatureCgroupEvents:
			inv.hasEvents = f.Err == nil
		case bpf.FeatureTasks:
			inv.hasTasks = f.Err == nil
		}
	}
	table, err := apptype.Default()
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	inv.programs = programs{procRoot: opts.ProcRoot, table: table, executables: map[fileID][]string{}}
	inv.delaysTold = k.DelaysTold()
	if !inv.hasTasks {
		inv.openTaskstats()
	}
	inv.beginDelayAccounting()
	if opts.Network.Enabled {
		ns, err := hostNetNS(opts.ProcRoot)
		inv.hostNetNS = ns
		inv.features = append(inv.features, Feature{Name: FeatureHostNetwork, Err: err})
		inv.ephemeral = ephemeralPorts(opts)
	}
	inv.namespaces = namespaces{procRoot: opts.ProcRoot, host: inv.hostNetNS, byID: map[uint32]*namespace{}, translated: map[uint32]bool{}}
	inv.sums = newSums()
	inv.strange = map[[2]uint64]time.Time{}
	inv.proxies = proxies{procRoot: opts.ProcRoot, known: map[int]*knownProcess{}}
	inv.openMounts()
	if inv.zones, err = openZones(opts.Network.Zones, inv.log, inv.now()); err != nil {
		return nil, errors.Join(err, inv.Close())
	}
	if err := inv.openLogs(ctx); err != nil {
		return nil, errors.Join(err, inv.Close())
	}
	if o := opts.Runtimes; o.Enabled {
		inv.directory = openDirectory(runtimes.Options{Root: o.Root, Sockets: o.Sockets, Answer: inv.onAnswer, Logger: inv.log})
	}
	if err := inv.walk(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, errors.Join(err, inv.Close())
		}
		inv.log.Warn("a part of the cgroups cannot be seen", zap.Error(err))
	}
	inv.learnProcesses()
	if opts.Network.Enabled {
		inv.adopt(ctx)
	}
	inv.mu.Lock()
	inv.watching = true
	follow := inv.hasEvents
	inv.mu.Unlock()
	run, cancel := context.WithCancel(context.Background())
	inv.cancel = cancel
	if follow {
		inv.follower.Go(inv.followEvents)
	}
	if inv.hasTasks {
		inv.follower.Go(inv.followExits)
	}
	if inv.logFiles != nil {
		inv.follower.Go(inv.followFileWrites)
	}
	inv.maintainer.Go(func() { inv.maintain(run) })
	inv.awaitNames(ctx)
	if inv.logs != nil {
		inv.maintainer.Go(func() { inv.runLogs(run) })
	}
	if opts.Network.Enabled && opts.Latency.ICMP {
		inv.maintainer.Go(func() { inv.sendEchoes(run) })
	}
	return inv, nil
}

// Close lets go of everything that Open took. No other method may be called after it.
func (inv *Inventory) Close() error {
	if inv.cancel != nil {
		inv.cancel()
	}
	if inv.directory != nil {
		inv.directory.Close()
	}
	err := inv.closeTaskstats()
	inv.maintainer.Wait() // it uses the kernel
	if inv.mounts != nil {
		inv.mounts.Close()
	}
	if inv.logs != nil {
		err = errors.Join(err, inv.logs.Close())
	}
	err = errors.Join(err, inv.kernel.Close())
	inv.follower.Wait()
	inv.closeOver()
	for _, c := range inv.containers {
		c.current.close()
	}
	return err
}

// EndLogs ends the reading of logs. When it returns, what was read was told to those who follow events. Close does it too, but too
// late for them.
func (inv *Inventory) EndLogs() error {
	if inv.logs == nil {
		return nil
	}
	return inv.logs.Close()
}

// Status tells how well the inventory works. It is cheap.
func (inv *Inventory) Status() Status {
	k := inv.kernel.Stats()
	inv.mu.Lock()
	s := inv.status
	for _, c := range inv.containers {
		if c.goneAt.IsZero() && !c.hidden {
			s.Containers++
		}
	}
	accounting := Feature{Name: FeatureDelayAccounting, Err: inv.accountingOff}
	inv.mu.Unlock()
	s.CgroupMode = inv.fs.Mode().String()
	for _, f := range inv.kernel.Features() {
		s.Features = append(s.Features, Feature{Name: f.Name, Err: f.Err})
	}
	s.Features = append(s.Features, inv.features...)
	s.Features = append(s.Features, accounting)
	s.EventsLost = k.EventsLost
	s.EventsDropped += k.ExitsLost
	s.UsagesLive, s.UsagesMax = k.Usages, k.UsagesMax
	s.TasksUnaccounted += k.TasksUnaccounted
	s.TasksUnknown = k.TasksUnknown
	s.DelayAnomalies += k.DelayAnomalies
	s.EdgesLive, s.EdgesMax = k.Edges, k.EdgesMax
	s.EdgesFolded = k.EdgesFolded
	s.EdgesUnaccounted = k.EdgesUnaccounted + k.Untracked
	s.ListenersLive, s.ListenersMax = k.Listeners, k.ListenersMax
	s.ListenersFolded = k.ListenersFolded
	s.SocketsAdopted = k.Adopted
	s.DiskIOLive, s.DiskIOMax, s.DiskIOUnaccounted = k.DiskIOs, k.DiskIOsMax, k.DiskIOUnaccounted+k.DiskIOMissed
	if inv.mounts != nil {
		s.MountsSkipped = inv.mounts.Stats().SlowSizes
	}
	s.ZonesErrors = inv.zones.errorCount()
	s.FileWritesLost = k.FileWritesLost + k.FileWritesSkipped
	if inv.logs != nil {
		s.Logs = inv.logs.Stats()
	}
	s.Runtimes = inv.runtimeStatus()
	return s
}

// hostNetNS gives the inode number of the host's network namespace. Where init's cannot be read it is our own, with an
// error that says so: right for a collector on the host network, as the Helm chart's DaemonSet can be.
func hostNetNS(procRoot string) (uint32, error) {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(procRoot, "1/ns/net"), &st)
	if err == nil {
		return uint32(st.Ino), nil
	}
	err = fmt.Errorf("read init's network namespace: %w: taking the collector's own for the host's", err)
	if unix.Stat("/proc/self/ns/net", &st) == nil {
		return uint32(st.Ino), err
	}
	return 0, err
}
