// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// lookDeadline is how long a look waits for file systems that do not answer.
	lookDeadline = 500 * time.Millisecond
	// maxRootsLookedAt is how many processes are looked at for one that has not changed its root directory.
	maxRootsLookedAt = 8
	// unknownUpper is the Device of an overlay as long as that of its upper directory is not known.
	unknownUpper = "overlay"
)

// Look returns the mounts of a container, sorted by mount point, no mount point twice. pids are its processes; those that a
// runtime has just begun and that are not yet what they will be should not be among them. before is what Look returned the
// last time: what is still mounted stays. It is not changed.
//
// The error is that of the kernel when no mount table could be read, fs.ErrNotExist if no process is alive; then what was
// before is returned. Look reads files of all processes and may take a few milliseconds, and up to half a second where a
// file system that is not known yet does not answer.
func (r *Reader) Look(pids []int, before []Mount) ([]Mount, error) {
	l, err := r.beginLook(pids, before)
	if err != nil {
		return before, err
	}
	var kept []Mount
	seen := map[int]bool{}
	wanted := map[int]*candidate{}
	for _, m := range before {
		e := l.table.byID[m.ID]
		if e == nil || m.Namespace != l.namespace || !m.isStill(e) || !l.table.visible(e) {
			continue
		}
		kept = append(kept, m)
		seen[m.ID] = true
		if m.FSType == "overlay" && m.Device == unknownUpper { // perhaps it is known by now
			wanted[m.ID] = &candidate{entry: e, kind: kindOverlay, written: true}
		}
	}
	for i := range l.table.entries {
		e := &l.table.entries[i]
		k := kindOf(e)
		switch {
		case seen[e.id] || !r.counts(e, k) || !l.table.visible(e):
		case len(wanted) >= maxCandidates:
			r.mountsSkipped.Add(1)
		default:
			wanted[e.id] = &candidate{entry: e, kind: k}
		}
	}
	if len(wanted) > 0 {
		l.findVolumes(wanted)
		r.findWritten(l.pids, wanted)
		found, err := l.accept(wanted, seen)
		if err != nil {
			return before, err
		}
		kept = slices.DeleteFunc(kept, func(m Mount) bool {
			return slices.ContainsFunc(found, func(f Mount) bool { return f.ID == m.ID })
		})
		kept = append(kept, found...)
	}
	slices.SortFunc(kept, func(a, b Mount) int { return cmp.Compare(a.MountPoint, b.MountPoint) })
	assignIO(kept)
	return kept, nil
}

// isStill tells that an entry with the id of a mount is that mount.
func (m *Mount) isStill(e *entry) bool {
	return m.MountPoint == e.mountPoint && m.Number == e.number && m.Root == e.root && m.FSType == e.fsType && m.Source == e.source
}

// counts tells whether a mount is one to look for.
func (r *Reader) counts(e *entry, k kind) bool {
	return !e.readOnly && k != kindNone && (k != kindMemory || r.opts.Tmpfs) && !runtimeFiles[e.mountPoint]
}

// runtimeFiles are single files that runtimes mount. Others are found out by a question to the file system.
var runtimeFiles = map[string]bool{
	"/dev/termination-log": true, "/etc/hostname": true, "/etc/hosts": true, "/etc/mtab": true, "/etc/resolv.conf": true,
	"/run/.containerenv": true,
}

// candidate is a mount that counts if it is written to.
type candidate struct {
	entry   *entry
	kind    kind
	volume  volume
	written bool
}

// look is the state of one call of Look.
type look struct {
	r         *Reader
	pids      []int  // processes with the namespace
	opener    int    // the one whose table it is
	namespace uint64 // 0 if unknown
	table     *table
	host      *table // nil if unknown
}

// beginLook chooses the mount namespace that is looked at and reads its table: that of before if it still has a process, or
// else the one with most processes.
func (r *Reader) beginLook(pids []int, before []Mount) (*look, error) {
	in := map[uint64][]int{}
	var order []uint64
	for _, pid := range pids {
		ns := namespaceOf(r.procDir(pid))
		if in[ns] == nil {
			order = append(order, ns)
		}
		in[ns] = append(in[ns], pid)
	}
	slices.SortStableFunc(order, func(a, b uint64) int {
		if len(before) > 0 && (a == before[0].Namespace) != (b == before[0].Namespace) {
			if a == before[0].Namespace {
				return -1
			}
			return 1
		}
		return len(in[b]) - len(in[a])
	})
	firstErr := fmt.Errorf("look at mounts: %w", os.ErrNotExist)
	for _, ns := range order {
		l := &look{r: r, pids: in[ns], namespace: ns}
		if err := l.readTable(); err == nil {
			return l, nil
		} else if os.IsPermission(err) {
			firstErr = fmt.Errorf("look at mounts: %w", err)
		}
	}
	return nil, firstErr
}

func (l *look) readTable() error {
	host, hostNamespace := l.r.host.get(l.r, keepHostTable)
	l.host = host
	ownRoot := true // all have changed it, as far as can be seen
	for i, pid := range l.pids[:min(len(l.pids), maxRootsLookedAt)] {
		if root, err := os.Readlink(filepath.Join(l.r.procDir(pid), "root")); err == nil && root == "/" {
			l.pids[0], l.pids[i] = l.pids[i], l.pids[0]
			ownRoot = false
			break
		}
	}
	l.opener = l.pids[0]
	if host != nil && !ownRoot && l.namespace != 0 && l.namespace == hostNamespace {
		l.table = host
		return nil
	}
	err := os.ErrNotExist
	for _, pid := range l.pids {
		if l.table, err = l.r.readMounts(l.r.procDir(pid)); err == nil {
			l.opener = pid
			return nil
		}
	}
	return err
}

// findVolumes marks the candidates that are volumes: they count also if no process has a file open.
func (l *look) findVolumes(wanted map[int]*candidate) {
	var volumes []*candidate
	missing := false
	for _, c := range wanted {
		if c.kind != kindOverlay && c.entry.mountPoint != "/" {
			volumes = append(volumes, c)
			missing = missing || l.host != nil && l.host.byNumber[c.entry.number] == nil
		}
	}
	if missing { // the volume may be as new as the container
		l.host, _ = l.r.host.get(l.r, keepHostTableMissing)
	}
	for _, c := range volumes {
		c.volume = volumeOf(c.entry, l.table, l.host)
		c.written = c.volume.named
	}
}

// accept makes mounts of the candidates that are written to and are directories, as far as there is room beside those that are
// known.
func (l *look) accept(wanted map[int]*candidate, known map[int]bool) ([]Mount, error) {
	var written []*candidate
	for _, c := range wanted {
		if c.written {
			written = append(written, c)
		}
	}
	slices.SortFunc(written, func(a, b *candidate) int { return cmp.Compare(a.entry.mountPoint, b.entry.mountPoint) })
	room := maxMountsOfOne - len(known)
	written = slices.DeleteFunc(written, func(c *candidate) bool {
		if known[c.entry.id] {
			return false
		}
		room--
		return room < 0
	})
	l.r.mountsSkipped.Add(uint64(max(-room, 0)))
	questions := make([]*call, len(written))
	for i, c := range written {
		questions[i] = l.question(c)
	}
	if len(questions) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookDeadline)
	defer cancel()
	started, err := l.r.calls.start(questions)
	if err != nil {
		return nil, err
	}
	var found []Mount
	for i, answered := range l.r.calls.finish(ctx, started) {
		c := written[i]
		switch {
		case !answered:
			l.r.slowLooks.Add(1)
		case c.kind == kindOverlay:
			found = append(found, l.mountOfOverlay(c, started[i].answer))
		case started[i].answer.isDir:
			found = append(found, l.mountOf(c))
		}
	}
	return found, nil
}

// question asks for what the mount table does not tell of a candidate.
func (l *look) question(c *candidate) *call {
	r, pid, upper, overlay := l.r, l.opener, c.entry.upper, c.kind == kindOverlay
	mount := newMount(c.entry, l.namespace)
	return &call{
		key:     fmt.Sprintf("look %d %d %s", mount.ID, mount.Number, mount.MountPoint),
		mayHang: mayHang(mount.FSType),
		run: func() answer {
			if overlay {
				return r.findUpper(pid, &mount, upper)
			}
			return r.isDirectory(pid, &mount)
		},
	}
}

// mountOf makes the Mount of anything but an overlay.
func (l *look) mountOf(c *candidate) Mount {
	m := newMount(c.entry, l.namespace)
	m.Volume = c.volume.name
	l.r.nameDevice(&m, c.entry, c.kind)
	m.SizedBy = sizedBy(c.entry, c.kind)
	return m
}

// mountOfOverlay makes the Mount of an overlay, which is on the file system of its upper directory. upper is what was found
// where the path of that leads from the root of the host. The path is that of the host if the host has the overlay in its mount
// table; another one may mean something else by it, which then shows by its size.
func (l *look) mountOfOverlay(c *candidate, upper answer) Mount {
	m := newMount(c.entry, l.namespace)
	m.Device, m.SizedBy = unknownUpper, sizedBy(c.entry, c.kind)
	merged := l.hostEntry(c.entry)
	below := l.foundUpper(upper)
	switch {
	case below != nil && (merged != nil || upper.sameSize):
	case merged != nil:
		below, upper.sameSize = l.guessUpper(c.entry, merged), false
	default:
		below = nil
	}
	if below == nil {
		return m
	}
	k := kindOf(below)
	l.r.nameDevice(&m, below, k)
	if upper.sameSize && !below.projectQuota && !mayHang(below.fsType) {
		m.SizedBy = sizedBy(below, k)
	}
	return m
}

// hostEntry finds the overlay of a container in the host's mount table.
func (l *look) hostEntry(e *entry) *entry {
	find := func() *entry {
		if l.host == nil {
			return nil
		}
		for _, h := range l.host.byNumber[e.number] {
			if h.fsType == e.fsType {
				return h
			}
		}
		return nil
	}
	if found := find(); found != nil || l.host == nil {
		return found
	}
	l.host, _ = l.r.host.get(l.r, keepHostTableMissing) // it may be as new as the container
	return find()
}

// foundUpper finds the mount of an upper directory that was found. The root of the host may be seen through our own mounts.
func (l *look) foundUpper(upper answer) *entry {
	if upper.refused {
		return nil
	}
	own, _ := l.r.own.get(l.r, keepHostTable)
	for _, t := range []*table{l.host, own} {
		if t == nil {
			continue
		}
		if below := t.byID[upper.id]; below != nil && upper.id != 0 {
			return below
		}
		if same := t.byNumber[upper.number]; upper.id == 0 && len(same) > 0 {
			return same[0]
		}
	}
	return nil
}

// guessUpper goes by what the host's mount table says of paths. merged is where the host has the overlay.
func (l *look) guessUpper(e, merged *entry) *entry {
	for _, dir := range upperDirs(e.upper) {
		if filepath.IsAbs(dir) {
			return l.host.at(filepath.Clean(dir))
		}
	}
	return l.host.under(merged) // relative to a directory that only the runtime knows: the merged one is beside it
}

func newMount(e *entry, namespace uint64) Mount {
	return Mount{
		MountPoint: e.mountPoint, FSType: e.fsType, ID: e.id, Namespace: namespace, Number: e.number, Root: e.root, Source: e.source,
	}
}

// nameDevice fills in what a file system is on.
func (r *Reader) nameDevice(m *Mount, e *entry, k kind) {
	m.Device = e.source
	if m.Device == "" {
		m.Device = e.fsType
	}
	m.Device = m.Device[:min(len(m.Device), maxDevice)]
	if k != kindBlock {
		return
	}
	number, ok := e.number, true
	if number.Major == 0 {
		number, ok = r.disks.numberOf(e.source)
	}
	disk := r.disks.get(number)
	if !ok || !disk.known {
		m.Device = filepath.Base(m.Device)
		return
	}
	m.Device, m.IODevice, m.HasIO = disk.Name, disk.Whole, true
}

// sizedBy names what has the same sizes. All of a file system on a block device has, unless some of its directories have a
// quota; what network file systems say may differ by directory.
func sizedBy(e *entry, k kind) string {
	if k == kindNetwork || e.projectQuota {
		return e.number.String() + " " + e.root
	}
	return e.number.String()
}
