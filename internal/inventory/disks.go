// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/mounts"
)

// diskState is what is known of the file systems that a container writes to. Guarded by Inventory.mu.
type diskState struct {
	looked bool // at least once
	mounts []mounts.Mount
	usages []mounts.Usage // of these, as last told
	series map[diskLabels]*diskSeries
}

// diskLabels are the attributes of a Disk.
type diskLabels struct {
	mountPoint, device, volume string
}

// diskSeries is a Disk as it was given last, and since when it is no more.
type diskSeries struct {
	last    Disk
	endedAt time.Time // zero for not yet
}

// openMounts begins to look at file systems, if that is wanted.
func (inv *Inventory) openMounts() {
	o := inv.opts.Disks
	if !o.Enabled {
		return
	}
	inv.mounts = mounts.Open(mounts.Options{ProcRoot: inv.opts.ProcRoot, SysRoot: o.SysRoot, HostRoot: o.Root, Tmpfs: o.Tmpfs})
}

// lookAtMounts finds out anew what file systems a life writes to. What has no process to look at stays as it was.
func (inv *Inventory) lookAtMounts(l *life, pids []int) {
	if inv.mounts == nil || len(pids) == 0 {
		return
	}
	inv.mu.Lock()
	before := l.container.disks.mounts
	inv.mu.Unlock()
	found, err := inv.mounts.Look(pids, before)
	if err != nil { // the processes are gone
		return
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if l.container.current == l {
		l.container.disks.take(found)
	}
}

// take replaces the mounts, keeping what is known of those that stay.
func (s *diskState) take(found []mounts.Mount) {
	usages := make([]mounts.Usage, len(found))
	for i := range found {
		same := func(m mounts.Mount) bool { return m.ID == found[i].ID && m.SizedBy == found[i].SizedBy }
		if was := slices.IndexFunc(s.mounts, same); was >= 0 && was < len(s.usages) {
			usages[i] = s.usages[was]
		}
	}
	s.looked, s.mounts, s.usages = true, found, usages
}

// readSizes asks how full the file systems of all live containers are.
func (inv *Inventory) readSizes(ctx context.Context) {
	if inv.mounts == nil {
		return
	}
	var asked []*container
	var requests []mounts.SizeRequest
	inv.mu.Lock()
	now := inv.now()
	for _, c := range inv.containers {
		if !c.goneAt.IsZero() || len(c.disks.mounts) == 0 || !c.isShown(now) {
			continue
		}
		places := placesOf(c)
		asked = append(asked, c)
		requests = append(requests, mounts.SizeRequest{
			PIDs:   func() []int { return inv.processesOf(places) },
			Mounts: c.disks.mounts,
		})
	}
	inv.mu.Unlock()
	usages, err := inv.mounts.Sizes(ctx, requests)
	if err != nil { // it is being closed
		return
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for i, c := range asked {
		if slices.Equal(c.disks.mounts, requests[i].Mounts) { // not looked at since
			c.disks.usages = usages[i]
		}
	}
}

// giveDisks fills in the file systems of c, and its I/O by them. mu is held.
func (inv *Inventory) giveDisks(to *Container, c *container, now time.Time) {
	if inv.mounts == nil {
		return
	}
	s := &c.disks
	disks := map[diskLabels]*Disk{}
	find := func(l diskLabels) *Disk {
		d := disks[l]
		if d == nil {
			d = &Disk{MountPoint: l.mountPoint, Device: l.device, Volume: l.volume}
			disks[l] = d
		}
		return d
	}
	for i := range s.mounts {
		m := &s.mounts[i]
		d := find(diskLabels{m.MountPoint, m.Device, m.Volume})
		if u := s.usages[i]; u.Known {
			d.Usage = Opt[DiskUsage]{V: DiskUsage{Size: u.Size, Used: u.Used, Reserved: u.Reserved}, OK: true}
		}
		if m.GivesIO { // zeros too: a counter that first shows up as 1 is no increase for a Prometheus query
			d.IO.OK = true
		}
	}
	if s.looked || to.Phase != Live {
		inv.placeIO(to.Stats.Devices, s.mounts, find)
	}
	to.Disks = s.giveSeries(disks, now, inv.opts.Keep)
}

// placeIO adds the I/O of a container to where it is to be given.
func (inv *Inventory) placeIO(devices []cgroups.Device, all []mounts.Mount, find func(diskLabels) *Disk) {
	numbers := make([]mounts.DeviceNumber, len(devices))
	for i, d := range devices {
		numbers[i] = mounts.DeviceNumber{Major: d.Major, Minor: d.Minor}
	}
	for _, p := range mounts.PlaceIO(numbers, all, inv.mounts.Disk) {
		io := &find(diskLabels{p.MountPoint, p.Device, p.Volume}).IO
		io.OK = true
		for _, n := range p.Disks {
			d := &devices[slices.Index(numbers, n)]
			io.V.Reads += d.Reads
			io.V.Writes += d.Writes
			io.V.ReadBytes += d.ReadBytes
			io.V.WriteBytes += d.WriteBytes
		}
	}
}

// giveSeries lists what there is, and what was until a short while ago.
func (s *diskState) giveSeries(disks map[diskLabels]*Disk, now time.Time, keep time.Duration) []Disk {
	if s.series == nil {
		s.series = map[diskLabels]*diskSeries{}
	}
	list := make([]Disk, 0, len(disks))
	for l, d := range disks {
		s.series[l] = &diskSeries{last: *d}
		list = append(list, *d)
	}
	for l, series := range s.series {
		switch {
		case disks[l] != nil:
		case series.endedAt.IsZero():
			series.endedAt = now
			series.last.Ended = true
			list = append(list, series.last)
		case now.Sub(series.endedAt) > keep:
			delete(s.series, l)
		default:
			list = append(list, series.last)
		}
	}
	slices.SortFunc(list, func(a, b Disk) int {
		return cmp.Or(cmp.Compare(a.MountPoint, b.MountPoint), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Volume, b.Volume))
	})
	return list
}
