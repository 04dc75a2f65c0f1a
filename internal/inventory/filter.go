// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/runtimes"
)

// wanted tells whether a container is to be given under a path form.
func (inv *Inventory) wanted(name string, ref cgroups.Ref) bool {
	return inv.isIncluded(name) && !inv.isExcluded(name, ref, runtimes.Unit{})
}

// mayBeWanted tells whether a container is to be watched, of which no more than its cgroup is known.
func (inv *Inventory) mayBeWanted(ref cgroups.Ref) bool {
	name := ref.Name()
	return !inv.isExcluded(name, ref, runtimes.Unit{}) && (inv.isIncluded(name) || inv.directory != nil && hasRuntime(ref.Kind))
}

func (inv *Inventory) isIncluded(name string) bool {
	return len(inv.opts.Include) == 0 || matchesAny(inv.opts.Include, name)
}

func (inv *Inventory) isExcluded(name string, ref cgroups.Ref, unit runtimes.Unit) bool {
	if inv.opts.SkipSystemUnits && ref.Kind == cgroups.Systemd && (isHousekeeping(path.Base(name)) || isChore(unit)) {
		return true
	}
	return matchesAny(inv.opts.Exclude, name)
}

// hasRuntime tells whether containers of a kind are known to a runtime under names that their cgroups do not have.
func hasRuntime(k cgroups.Kind) bool {
	switch k {
	case cgroups.Docker, cgroups.Kubernetes, cgroups.Containerd, cgroups.Podman, cgroups.ECS, cgroups.Other:
		return true
	}
	return false
}

// isChore tells of units that do something and end, or serve the message bus.
func isChore(unit runtimes.Unit) bool {
	return unit.Type == "oneshot" || unit.Type == "dbus" ||
		slices.ContainsFunc(unit.TriggeredBy, func(by string) bool { return strings.HasSuffix(by, ".timer") })
}

func matchesAny(res []*regexp.Regexp, s string) bool {
	for _, re := range res {
		if re.MatchString(s) {
			return true
		}
	}
	return false
}

// isHousekeeping knows the units that come with every distribution and that nobody watches.
func isHousekeeping(unit string) bool {
	unit, _, _ = strings.Cut(strings.TrimSuffix(unit, ".service"), "@")
	switch unit {
	case "dbus", "dbus-broker", "getty", "serial-getty", "snapd", "packagekit", "unattended-upgrades", "multipathd",
		"qemu-guest-agent", "irqbalance", "networkd-dispatcher", "rpcbind":
		return true
	}
	return strings.HasPrefix(unit, "systemd-")
}
