// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// containers is what the receiver needs of the inventory; tests have another one.
type containers interface {
	Snapshot(context.Context) (inventory.Snapshot, error)
	FollowEvents(ctx context.Context, fn func(inventory.Event))
	Status() inventory.Status
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
	users     int // guarded by instances.mu

	mu      sync.Mutex // guards what follows
	started int        // signals
	running *running
}

// running is a started instance; its fields do not change.
type running struct {
	containers containers
	host       node.Identity
	telemetry  *metadata.TelemetryBuilder
	dropped    *atomic.Uint64 // records that the logs signal could not give
}

func (in *instance) start(ctx context.Context) (*running, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.running == nil {
		r, err := in.run(ctx)
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
func (in *instance) run(ctx context.Context) (*running, error) {
	log := in.telemetry.Logger

	host, err := node.ReadIdentity(in.cfg.RootPath)
	if err != nil {
		log.Warn("the host has no machine id: set the resource attribute host.id (or machine_id) in a processor",
			zap.Error(err))
	}

	inv, err := in.open(ctx, in.options()) // ctx bounds the opening alone
	if err != nil {
		return nil, fmt.Errorf("open the inventory of containers: %w", err)
	}
	r := &running{containers: inv, host: host, dropped: new(atomic.Uint64)}

	if r.telemetry, err = observe(in.telemetry, in.id, inv, r.dropped); err != nil {
		_ = r.close()
		return nil, fmt.Errorf("register own metrics: %w", err)
	}

	logStatus(log, inv.Status(), host, in.cfg)
	return r, nil
}

// close ends what run began, in the reverse order.
func (r *running) close() error {
	if r.telemetry != nil {
		r.telemetry.Shutdown() // before Close: the callbacks ask for the status
	}
	return r.containers.Close()
}

// options translates a valid configuration.
func (in *instance) options() inventory.Options {
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
			EphemeralPorts:  portRange(cfg.Network.EphemeralPortRange),
			IdleTimeout:     cfg.Network.IdleTimeout,
		},
		Latency: inventory.LatencyOptions{ICMP: cfg.Latency.ICMP},
		Logger:  in.telemetry.Logger,
	}
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
func (s *signal) Start(ctx context.Context, _ component.Host) error {
	_, err := s.start(ctx)
	return err
}

func (s *signal) start(ctx context.Context) (*running, error) {
	r, err := s.in.start(ctx)
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
