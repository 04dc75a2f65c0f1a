// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Reader looks at the mounts of containers. Its methods may be called at any time by anyone.
type Reader struct {
	opts  Options
	calls *calls
	disks disks
	host  hostTable
	own   hostTable // only ever that of our own namespace

	noOpenat2 atomic.Bool // refused here

	slowSizes, failedSizes, slowLooks, filesSkipped, mountsSkipped, tablesCut atomic.Uint64
}

// Open returns a Reader. It touches nothing yet.
func Open(opts Options) *Reader { return openAt(opts, time.Now) }

func openAt(opts Options, now func() time.Time) *Reader {
	for _, root := range []struct {
		path  *string
		usual string
	}{{&opts.ProcRoot, "/proc"}, {&opts.SysRoot, "/sys"}, {&opts.HostRoot, "/"}} {
		if *root.path == "" {
			*root.path = root.usual
		}
	}
	return &Reader{
		opts:  opts,
		calls: newCalls(now),
		disks: disks{sysRoot: opts.SysRoot, hostRoot: opts.HostRoot, now: now},
		host:  hostTable{procRoot: opts.ProcRoot, of: []string{"1", "self"}, now: now},
		own:   hostTable{procRoot: opts.ProcRoot, of: []string{"self"}, now: now},
	}
}

// Close ends what the Reader does, within a fraction of a second. A goroutine that waits in the kernel for a file system
// that does not answer ends when the kernel lets it go, which may be never.
func (r *Reader) Close() { r.calls.close() }

// Stats returns what could not be told so far.
func (r *Reader) Stats() Stats {
	return Stats{
		SlowSizes:     r.slowSizes.Load(),
		FailedSizes:   r.failedSizes.Load(),
		SlowLooks:     r.slowLooks.Load(),
		FilesSkipped:  r.filesSkipped.Load(),
		MountsSkipped: r.mountsSkipped.Load(),
		TablesCut:     r.tablesCut.Load(),
		Stuck:         r.calls.stuck(),
	}
}

// Disk tells of a block device. What sysfs does not know has its number for a name.
func (r *Reader) Disk(n DeviceNumber) Disk { return r.disks.get(n) }

func (r *Reader) procDir(pid int) string { return filepath.Join(r.opts.ProcRoot, strconv.Itoa(pid)) }

// readMounts reads the mount table of a process.
func (r *Reader) readMounts(procDir string) (*table, error) {
	f, err := os.Open(filepath.Join(procDir, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, whole, err := readTable(f)
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	if !whole {
		r.tablesCut.Add(1)
	}
	return t, nil
}

// namespaceOf returns the number of the mount namespace of a process, 0 if that may not be known.
func namespaceOf(procDir string) uint64 {
	target, err := os.Readlink(filepath.Join(procDir, "ns/mnt"))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(target, "mnt:["), "]"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

const (
	// keepHostTable is how old the mount table of the host may be, keepHostTableMissing where it lacks something.
	keepHostTable        = 5 * time.Second
	keepHostTableMissing = 100 * time.Millisecond
)

// hostTable is the mount table of the host, or of our own namespace where that of the host is closed to us. It is read
// again when it is old.
type hostTable struct {
	procRoot string
	of       []string // processes; that of the first one that can be read
	now      func() time.Time

	mu        sync.Mutex // guards what follows, and is held while the table is read
	namespace uint64
	table     *table // nil if it cannot be read
	readAt    time.Time
}

// get returns the table and its namespace, no older than that.
func (h *hostTable) get(r *Reader, maxAge time.Duration) (*table, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if !h.readAt.IsZero() && now.Sub(h.readAt) < maxAge {
		return h.table, h.namespace
	}
	h.table, h.namespace, h.readAt = nil, 0, now
	for _, who := range h.of {
		dir := filepath.Join(h.procRoot, who)
		if t, err := r.readMounts(dir); err == nil {
			h.table, h.namespace = t, namespaceOf(dir)
			break
		}
	}
	return h.table, h.namespace
}

// mountIDOf returns the mount that a file is on, 0 where the kernel does not tell, as before Linux 5.8, and the number of its
// file system. It asks no network file system, unless the way to the file leads through one.
func mountIDOf(dirfd int, name string, flags int) (id int, mode uint16, number DeviceNumber, err error) {
	var st unix.Statx_t
	err = unix.Statx(dirfd, name, flags|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_MNT_ID, &st)
	if err != nil {
		return 0, 0, DeviceNumber{}, err
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		id = int(st.Mnt_id)
	}
	return id, st.Mode, DeviceNumber{st.Dev_major, st.Dev_minor}, nil
}
