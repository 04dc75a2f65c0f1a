// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"path"
	"regexp"
	"strings"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// wanted tells whether a container is to be watched at all.
func (inv *Inventory) wanted(name string, ref cgroups.Ref) bool {
	if inv.opts.SkipSystemUnits && ref.Kind == cgroups.Systemd && isHousekeeping(path.Base(name)) {
		return false
	}
	if matchesAny(inv.opts.Exclude, name) {
		return false
	}
	return len(inv.opts.Include) == 0 || matchesAny(inv.opts.Include, name)
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
