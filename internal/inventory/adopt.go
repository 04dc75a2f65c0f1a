// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/netns"
)

const (
	// translationsTimeout bounds the reading of the connection tracking tables of all namespaces at the start.
	translationsTimeout = 3 * time.Second
	// translationsFrom is how many namespaces of containers are asked besides that of the host.
	translationsFrom = 256
)

// adopt takes in the connections that were there before the kernel programs, with their real peers.
func (inv *Inventory) adopt(ctx context.Context) {
	if inv.tracksConnections() {
		err := netlinkOfConntrack()
		if err == nil {
			err = inv.readTranslations(ctx)
		}
		inv.features = append(inv.features, Feature{Name: FeatureConntrack, Err: err})
	}
	if err := inv.kernel.Adopt(); err != nil {
		inv.log.Warn("connections older than the collector are not counted", zap.Error(err))
	}
}

// tracksConnections tells whether the kernel has connection tracking: asking for it would make it load modules.
func (inv *Inventory) tracksConnections() bool {
	for _, f := range inv.kernel.Features() {
		if f.Name == bpf.FeatureNetworkNAT {
			return f.Err == nil
		}
	}
	return false
}

// netlinkOfConntrack tells why connection tracking cannot be asked. Where it is made of modules, asking would load one.
func netlinkOfConntrack() error {
	const tracking, netlink = "/sys/module/nf_conntrack", "/sys/module/nf_conntrack_netlink"
	if _, err := os.Stat(filepath.Join(tracking, "initstate")); err != nil {
		return nil //nolint:nilerr // built in
	}
	if _, err := os.Stat(netlink); err != nil {
		return fmt.Errorf("%w: the kernel module nf_conntrack_netlink is not loaded", errors.ErrUnsupported)
	}
	return nil
}

// readTranslations tells the kernel programs of the translated connections in the host's network namespace and in those
// of containers. Only that of the host can fail: containers have their own rules seldom.
func (inv *Inventory) readTranslations(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, translationsTimeout)
	defer cancel()
	err := inv.translationsOf(ctx, 1)
	if err != nil && errors.Is(err, os.ErrPermission) {
		err = inv.translationsOf(ctx, os.Getpid()) // our own is the host's, or may be
	}
	inv.mu.Lock()
	var containers [][]place
	for _, c := range inv.containers {
		if len(containers) < translationsFrom {
			containers = append(containers, placesOf(c))
		}
	}
	inv.mu.Unlock()
	for _, places := range containers {
		if pids := inv.pidsOf(places); len(pids) > 0 && ctx.Err() == nil {
			_ = inv.translationsOf(ctx, pids[0])
		}
	}
	return err
}

func (inv *Inventory) translationsOf(ctx context.Context, pid int) error {
	ns, err := netns.Open(inv.opts.ProcRoot, pid)
	if err != nil {
		return fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	if inv.namespaces.translated[ns.ID()] {
		return nil
	}
	inv.namespaces.translated[ns.ID()] = true
	return ns.Translations(ctx, func(t netns.Translation) {
		_ = inv.kernel.AddTranslation(t.Source, t.Destination, t.Actual) // the table keeps the latest
	})
}

// defaultEphemeral is net.ipv4.ip_local_port_range where it is not set.
var defaultEphemeral = PortRange{First: 32768, Last: 60999, Set: true}

func ephemeralPorts(opts Options) PortRange {
	if opts.Network.EphemeralPorts.Set {
		return opts.Network.EphemeralPorts
	}
	b, err := os.ReadFile(filepath.Join(opts.ProcRoot, "sys/net/ipv4/ip_local_port_range"))
	if err != nil {
		return defaultEphemeral
	}
	r := PortRange{Set: true}
	if _, err := fmt.Fscan(bytes.NewReader(b), &r.First, &r.Last); err != nil || r.First > r.Last {
		return defaultEphemeral
	}
	return r
}
