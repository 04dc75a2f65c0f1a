// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cloudmeta"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// containers is what the receiver needs of the inventory; tests have another one.
type containers interface {
	Snapshot(context.Context) (inventory.Snapshot, error)
	FollowEvents(ctx context.Context, fn func(inventory.Event))
	Status() inventory.Status
	EndLogs() error
	Close() error
}

type openFunc func(context.Context, inventory.Options) (containers, error)

func openInventory(ctx context.Context, o inventory.Options) (containers, error) {
	inv, err := inventory.Open(ctx, o)
	if err != nil {
		return nil, err // not inv: a nil *Inventory in the interface would not be nil
	}
	return inv, nil
}

// instance is what all signals of one component id share. It runs from the first Start to the last Shutdown.
type instance struct {
	id        component.ID
	cfg       *Config
	telemetry component.TelemetrySettings
	open      openFunc
	users     int  // guarded by instances.mu
	records   bool // there is a logs signal; does not change from the first Start on

	mu      sync.Mutex // guards what follows
	started int        // signals
	running *running
}

// running is a started instance; its fields do not change.
type running struct {
	containers containers
	storage    *storageClient // nil without logs.storage
	host       node.Identity
	cloud      *cloudmeta.Watcher // nil where no cloud is asked
	configured cloudmeta.Instance // what is known then
	node       *nodeReader        // nil when it is switched off
	telemetry  *metadata.TelemetryBuilder
	dropped    *dropped
}

// dropped counts what the logs signal could not give.
type dropped struct{ events, messages atomic.Uint64 }

func (in *instance) start(ctx context.Context, host component.Host) (*running, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.running == nil {
		r, err := in.run(ctx, host)
		if err != nil {
			return nil, err
		}
		in.running = r
	}
	in.started++
	return in.running, nil
}

func (in *instance) stop() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.started--; in.started > 0 {
		return nil
	}
	r := in.running
	in.running = nil
	return r.close()
}

// run is the whole start order. Only a host without control groups is an error; what else the host refuses is off.
func (in *instance) run(ctx context.Context, around component.Host) (*running, error) {
	log := in.telemetry.Logger

	storage, err := openStorage(ctx, in.cfg.Logs, in.id, around)
	if err != nil {
		return nil, err
	}

	host, err := node.ReadIdentity(in.cfg.RootPath)
	if err != nil {
		log.Warn("the host has no machine id: set the resource attribute host.id (or machine_id) in a processor",
			zap.Error(err))
	}

	inv, err := in.open(ctx, in.options(storage)) // ctx bounds the opening alone
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the inventory of containers: %w", err), storage.close())
	}
	r := &running{
		containers: inv, storage: storage, host: host, node: openNode(in.cfg), configured: in.cfg.Cloud.instance(), dropped: new(dropped),
	}
	if in.cfg.Cloud.Enabled {
		r.cloud = cloudmeta.Open(cloudmeta.Options{Root: in.cfg.RootPath, Override: r.configured, Logger: log})
	}

	if r.telemetry, err = observe(in.telemetry, in.id, r); err == nil {
		err = r.node.observe(r.telemetry, in.id)
	}
	if err != nil {
		_ = r.close()
		return nil, fmt.Errorf("register own metrics: %w", err)
	}

	st := inv.Status()
	st.Features = slices.Concat(st.Features, r.node.featuresToTell())
	logStatus(log, st, host, in.cfg)
	return r, nil
}

// close ends what run began, in the reverse order.
func (r *running) close() error {
	if r.telemetry != nil {
		r.telemetry.Shutdown() // before Close: the callbacks ask for the status
	}
	var cloud error
	if r.cloud != nil {
		cloud = r.cloud.Close()
	}
	return errors.Join(cloud, r.node.close(), r.containers.Close(), r.storage.close())
}

// instance is what is known by now of the cloud's machine that the host is.
func (r *running) instance() cloudmeta.Instance {
	if r.cloud != nil {
		if i, ok := r.cloud.Instance(); ok {
			return i
		}
	}
	return r.configured
}

// options translates a valid configuration.
func (in *instance) options(storage *storageClient) inventory.Options {
	cfg := in.cfg
	cgroupRoot := cfg.CgroupRoot
	if cgroupRoot == "" {
		cgroupRoot = filepath.Join(cfg.RootPath, "sys/fs/cgroup")
	}
	return inventory.Options{
		CgroupRoot:      cgroupRoot,
		ProcRoot:        filepath.Join(cfg.RootPath, "proc"),
		BPFFSRoot:       filepath.Join(cfg.RootPath, "sys/fs/bpf"),
		Include:         patterns(cfg.Containers.Include),
		Exclude:         patterns(cfg.Containers.Exclude),
		MinAge:          cfg.Containers.MinAge,
		SkipSystemUnits: cfg.Containers.SkipSystemUnits,
		// Two collections fit in, even if one is late, so that none misses the last totals.
		Keep: 2*cfg.CollectionInterval + 5*time.Second,

		EnableDelayAccounting: cfg.Delays.EnableAccounting,
		NameIsIdentity:        cfg.Identity == IdentityCoroot,
		Runtimes: inventory.RuntimesOptions{
			Enabled: cfg.Runtimes.Enabled,
			Root:    cfg.RootPath,
			Sockets: sockets(&cfg.Runtimes.Sockets),
		},
		Disks: inventory.DisksOptions{
			Enabled: cfg.Disks.Enabled,
			Tmpfs:   cfg.Disks.Tmpfs,
			Root:    cfg.RootPath,
			SysRoot: filepath.Join(cfg.RootPath, "sys"),
		},
		Network: inventory.NetworkOptions{
			Enabled:         cfg.Network.Enabled,
			MaxEdges:        uint32(cfg.Network.MaxEdges), //nolint:gosec // Validate bounds it
			MaxDestinations: cfg.Network.MaxDestinationsPerContainer,
			MaxListeners:    cfg.Network.MaxListenersPerContainer,
			TrackPublic:     prefixes(cfg.Network.TrackPublic),
			Zones:           zones(&cfg.Network),
			EphemeralPorts:  portRange(cfg.Network.EphemeralPortRange),
			IdleTimeout:     cfg.Network.IdleTimeout,
		},
		Logs:    in.logsOptions(storage),
		Latency: inventory.LatencyOptions{ICMP: cfg.Latency.ICMP},
		Logger:  in.telemetry.Logger,
	}
}

func (in *instance) logsOptions(storage *storageClient) inventory.LogsOptions {
	c := &in.cfg.Logs
	o := inventory.LogsOptions{
		Enabled:              c.Enabled,
		Root:                 in.cfg.RootPath,
		Roots:                c.Roots,
		Journal:              c.Journal,
		JournalDirs:          c.JournalDirs,
		MaxPatterns:          c.MaxPatternsPerContainer,
		MaxPatternsPerLevel:  c.MaxPatternsPerLevel,
		MaxMessagesPerSecond: c.MaxMessagesPerSecond,
		CheckpointEvery:      c.CheckpointInterval,
	}
	if in.records {
		o.NewPatterns, o.Forward = c.NewPatterns, forwards[c.Forward]
	}
	for _, name := range c.CountOnlyLevels {
		o.CountOnly = append(o.CountOnly, inventory.LogLevel(slices.Index(levelNames[:], name))) //nolint:gosec // Validate has looked
	}
	if storage != nil {
		o.Store = storage
	}
	return o
}

var forwards = map[ForwardMode]inventory.LogForward{
	ForwardNone: inventory.ForwardNone, ForwardErrors: inventory.ForwardErrors, ForwardAll: inventory.ForwardAll,
}

// sockets leaves out what is at its usual place.
func sockets(in *SocketsConfig) map[string][]string {
	all := map[string][]string{
		"docker": in.Docker, "podman": in.Podman, "cri": in.CRI, "containerd": in.Containerd, "systemd": in.Systemd,
	}
	maps.DeleteFunc(all, func(_ string, list []string) bool { return list == nil })
	return all
}

func patterns(in []PatternConfig) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, p := range in {
		out = append(out, regexp.MustCompile(string(p))) // Validate has compiled it
	}
	return out
}

func prefixes(in []PrefixConfig) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range in {
		if prefix, err := p.parse(); err == nil { // Validate has parsed it
			out = append(out, prefix)
		}
	}
	return out
}

func zones(cfg *NetworkConfig) inventory.ZonesOptions {
	o := inventory.ZonesOptions{File: cfg.ZonesFile}
	for _, z := range cfg.Zones {
		if zone, err := inventory.ParseZone(z.CIDR, z.Zone); err == nil { // Validate has parsed it
			o.Zones = append(o.Zones, zone)
		}
	}
	return o
}

func portRange(in PortRangeConfig) inventory.PortRange {
	first, last, err := in.parse()
	if in == "" || err != nil { // Validate has parsed it
		return inventory.PortRange{}
	}
	return inventory.PortRange{First: first, Last: last, Set: true}
}

// logStatus says once what is on, and in one line which parts are off and why.
func logStatus(log *zap.Logger, st inventory.Status, host node.Identity, cfg *Config) {
	var on, reasons []string
	off := map[string][]string{} // features by the reason that keeps them off
	for _, f := range st.Features {
		if f.Err == nil {
			on = append(on, f.Name)
			continue
		}
		reason := f.Err.Error()
		if f.Name == inventory.FeatureDelayAccounting { // off on most hosts: nothing to warn of
			log.Info("delays other than those of the CPU are not given, see Delays in the receiver's README", zap.String("reason", reason))
			continue
		}
		if off[reason] == nil {
			reasons = append(reasons, reason)
		}
		off[reason] = append(off[reason], f.Name)
	}
	if len(reasons) > 0 {
		for i, reason := range reasons {
			reasons[i] = strings.Join(off[reason], ", ") + ": " + reason
		}
		log.Warn("some parts are off, the rest runs; see Privileges in the receiver's README", zap.Strings("off", reasons))
	}
	log.Info("ebpf_container runs",
		zap.Strings("features", on),
		zap.String("cgroups", st.CgroupMode),
		zap.Int("containers", st.Containers),
		zap.String("identity", string(cfg.Identity)),
		zap.String("kernel", host.KernelVersion))
}

// signal is one signal of an instance.
type signal struct {
	in      *instance
	release func() // gives the instance back to the factory, once
	started bool
}

// Start implements component.Component.
func (s *signal) Start(ctx context.Context, host component.Host) error {
	_, err := s.start(ctx, host)
	return err
}

func (s *signal) start(ctx context.Context, host component.Host) (*running, error) {
	r, err := s.in.start(ctx, host)
	s.started = err == nil
	return r, err
}

// Shutdown implements component.Component. It may be called without Start, and more than once.
func (s *signal) Shutdown(context.Context) error {
	s.release()
	if !s.started {
		return nil
	}
	s.started = false
	return s.in.stop()
}
