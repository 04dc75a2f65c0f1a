// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// readInterfaces takes the counters from /proc/1/net/dev rather than from netlink: it is the same sum
// (dev_get_stats), in the host's namespace without entering it, and a host with hundreds of containers writes a line for each
// instead of two kilobytes.
func (r *Reader) readInterfaces(_ context.Context, st *Stats) error {
	proc, err := procfs.NewFS(r.hostNet.proc)
	if err != nil {
		return join(r.hostNet.note, err)
	}
	devices, err := proc.NetDev()
	if err != nil {
		return join(r.hostNet.note, err)
	}
	names, err := r.chosen(devices)
	r.names = names
	for _, name := range names {
		d := devices[name]
		st.Interfaces = append(st.Interfaces, Interface{
			Name:     validName(name),
			Up:       r.isUp(name),
			Receive:  Traffic{Bytes: d.RxBytes, Packets: d.RxPackets, Errors: d.RxErrors, Drops: d.RxDropped},
			Transmit: Traffic{Bytes: d.TxBytes, Packets: d.TxPackets, Errors: d.TxErrors, Drops: d.TxDropped},
		})
	}
	return join(r.hostNet.note, err)
}

// chosen are the interfaces to give, sorted. The error says why there may be too few.
func (r *Reader) chosen(devices procfs.NetDev) ([]string, error) {
	all := slices.Sorted(maps.Keys(devices))
	if r.interfaces != nil {
		return slices.DeleteFunc(all, func(name string) bool {
			return !slices.ContainsFunc(r.interfaces, func(re *regexp.Regexp) bool { return re.MatchString(name) })
		}), nil
	}
	physical := map[string]bool{}
	for _, name := range all {
		if _, err := os.Stat(r.sysNet(name, "device")); err == nil {
			r.addWithUppers(physical, name, 0)
		}
	}
	names := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !physical[name] })
	if len(names) == 0 {
		return nil, r.noPhysical(all)
	}
	return names, nil
}

// noPhysical says why there seems to be no physical interface: sysfs is of the network namespace that it was mounted in.
func (r *Reader) noPhysical(all []string) error {
	for _, name := range all {
		if _, err := os.Stat(r.sysNet(name)); err != nil {
			return fmt.Errorf("physical interfaces not told from others: %s: %w", r.sysNet(""), ErrNotHost)
		}
	}
	return fmt.Errorf("no physical interface among %q: %w", all, fs.ErrNotExist)
}

// addWithUppers adds the interface and what is made of it: a bond or bridge that it is a part of, a VLAN on top.
func (r *Reader) addWithUppers(physical map[string]bool, name string, depth int) {
	if physical[name] || depth > 8 { // MAX_NEST_DEV of the kernel
		return
	}
	physical[name] = true
	entries, _ := os.ReadDir(r.sysNet(name))
	for _, e := range entries {
		if upper, ok := strings.CutPrefix(e.Name(), "upper_"); ok && r.carriesAddresses(upper) {
			r.addWithUppers(physical, upper, depth+1)
		}
	}
}

// carriesAddresses tells bonds, teams, VLANs and bridges from tunnels and the interfaces of containers.
func (r *Reader) carriesAddresses(name string) bool {
	uevent, _ := os.ReadFile(r.sysNet(name, "uevent"))
	for line := range strings.Lines(string(uevent)) {
		switch strings.TrimSpace(line) {
		case "DEVTYPE=bond", "DEVTYPE=team", "DEVTYPE=vlan", "DEVTYPE=bridge":
			return true
		}
	}
	return false
}

func (r *Reader) sysNet(name string, elem ...string) string {
	return filepath.Join(append([]string{r.root, "sys/class/net", name}, elem...)...)
}

// isUp takes an interface whose driver does not tell its state for one that is up while it is switched on, as the kernel
// does itself (RFC 2863, include/uapi/linux/if.h).
func (r *Reader) isUp(name string) Opt[bool] {
	state, err := os.ReadFile(r.sysNet(name, "operstate"))
	if err != nil {
		return Opt[bool]{}
	}
	switch firstLine(string(state)) {
	case "up":
		return Some(true)
	case "unknown":
		const switchedOn = 1 // IFF_UP
		flags, err := strconv.ParseUint(readLine(r.sysNet(name), "flags"), 0, 32)
		return Opt[bool]{V: flags&switchedOn != 0, OK: err == nil}
	}
	return Some(false)
}

// readAddresses completes the interfaces that were read before.
func (r *Reader) readAddresses(ctx context.Context, st *Stats) error {
	if len(st.Interfaces) == 0 {
		return nil
	}
	byIndex, err := addresses(ctx, &r.route)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	for i, name := range r.names {
		index, err := strconv.ParseUint(readLine(r.sysNet(name), "ifindex"), 10, 32)
		if err != nil {
			continue // gone
		}
		all := byIndex[uint32(index)]
		slices.SortFunc(all, netip.Addr.Compare)
		st.Interfaces[i].Addresses = slices.Compact(all) // one may be there with several prefixes
	}
	return nil
}
