// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// DiskIO is what a cgroup has read from and written to one disk since the Tracer is there, counted as in io.stat of cgroup v2:
// when it is submitted to the disk, to a disk that lies on others (LVM, RAID, loop) and to those below. What the page cache
// answers is not in it; what is written back later is. Nothing in it ever falls, but when the entry was taken.
//
// A page belongs to the cgroup that has brought it into memory. Where that is not known, as of the file system's own blocks,
// and with direct I/O it is the cgroup of the task that submits: what the kernel's threads submit then is nobody's. That is so
// for the disk below where data is copied on the way (dm-crypt, RAID 5, a loop device without direct I/O), for files that the
// file system compresses or encrypts, and for all that is written back where Options.LegacyController is not memory.
type DiskIO struct {
	// CgroupV2 is in the unified hierarchy, CgroupV1 in the one of Options.LegacyController. One of them is zero: CgroupV2
	// unless the cgroup is known in the unified hierarchy alone.
	CgroupV2, CgroupV1 uint64
	Major, Minor       uint32 // of the whole disk, as in io.stat and /proc/diskstats

	Reads, Writes           uint64 // operations; an empty one that flushes the disk's cache is a write
	ReadBytes, WrittenBytes uint64
}

type ioTracer struct {
	objs  ioObjects
	links []link.Link

	mu     sync.Mutex // guards what follows, and that nobody reads while it is closed
	closed bool
	keys   []ioDiskKey
	values []ioDiskIo
	n      int // entries seen by the last ReadDiskIO
}

func openIO(o Options) (*ioTracer, error) {
	spec, err := ioSpec(o)
	if err != nil {
		return nil, err
	}
	t := &ioTracer{keys: make([]ioDiskKey, batchSize), values: make([]ioDiskIo, batchSize)}
	if err := spec.LoadAndAssign(&t.objs, nil); err != nil {
		return nil, err
	}
	if t.links, err = attach(t.objs.OnBioQueue, t.objs.OnBioSplit); err != nil {
		return nil, errors.Join(err, t.objs.Close())
	}
	return t, nil
}

func ioSpec(o Options) (*ebpf.CollectionSpec, error) {
	spec, err := loadIo()
	if err != nil {
		return nil, err
	}
	if o.MaxDiskIOs > 0 {
		spec.Maps[ioMapDiskIos].MaxEntries = o.MaxDiskIOs
	}
	if o.LegacyController == "" {
		return spec, nil
	}
	subsys, err := subsysID(o.LegacyController)
	if err != nil {
		return nil, err
	}
	id, err := hierarchyID(o.ProcRoot, o.LegacyController)
	if err != nil {
		return nil, err
	}
	return spec, errors.Join(spec.Variables[ioVarV1Subsys].Set(subsys), spec.Variables[ioVarV1Hierarchy].Set(id))
}

func (t *ioTracer) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return errors.Join(closeLinks(t.links), t.objs.Close())
}

// ReadDiskIO gives the I/O of each cgroup and disk; fn must not keep it. Without FeatureDiskIO there is nothing.
func (t *Tracer) ReadDiskIO(fn func(*DiskIO)) error {
	if t.io == nil {
		return nil
	}
	return t.io.read(fn)
}

func (t *ioTracer) read(fn func(*DiskIO)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.n = 0
	var cursor ebpf.MapBatchCursor
	var d DiskIO
	for {
		n, err := t.objs.DiskIos.BatchLookup(&cursor, t.keys, t.values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read disk I/O: %w", err)
		}
		for i := range n {
			d = diskIO(&t.keys[i], &t.values[i])
			fn(&d)
		}
		t.n += n
		if err != nil {
			return nil
		}
	}
}

// A dev_t of the kernel's own has the major number above the low minorBits.
const minorBits = 20

func diskIO(k *ioDiskKey, v *ioDiskIo) DiskIO {
	return DiskIO{
		CgroupV2: k.Owner.CgroupV2, CgroupV1: k.Owner.CgroupV1,
		Major: k.Dev >> minorBits, Minor: k.Dev & (1<<minorBits - 1),
		Reads: v.Reads, Writes: v.Writes, ReadBytes: v.ReadBytes, WrittenBytes: v.WrittenBytes,
	}
}

// TakeDiskIO takes the entry of d out of the kernel's table and makes d what it was at last. The cgroup should be gone. Pages
// that it has left behind may be written back later still: then there is a new entry of it, which begins at zero.
func (t *Tracer) TakeDiskIO(d *DiskIO) error {
	if t.io == nil {
		return nil
	}
	key := ioDiskKey{
		Owner: ioOwner{CgroupV2: d.CgroupV2, CgroupV1: d.CgroupV1},
		Dev:   d.Major<<minorBits | d.Minor,
	}
	var v ioDiskIo
	t.io.mu.Lock()
	defer t.io.mu.Unlock()
	if t.io.closed {
		return nil
	}
	err := t.io.objs.DiskIos.Lookup(key, &v)
	if err == nil {
		err = t.io.objs.DiskIos.Delete(key)
	}
	switch {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("take disk I/O: %w", err)
	}
	*d = diskIO(&key, &v)
	return nil
}

func (t *ioTracer) stats(s *Stats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	for stat, field := range map[ioIoStat]*uint64{
		ioIoStatIO_STAT_UNACCOUNTED:       &s.DiskIOUnaccounted,
		ioIoStatIO_STAT_UNACCOUNTED_BYTES: &s.DiskIOUnaccountedBytes,
	} {
		var cpus []uint64
		if err := t.objs.IoStats.Lookup(stat, &cpus); err != nil {
			continue
		}
		for _, n := range cpus {
			*field += n
		}
	}
	for _, p := range []*ebpf.Program{t.objs.OnBioQueue, t.objs.OnBioSplit} {
		if ran, err := p.Stats(); err == nil {
			s.DiskIOMissed += ran.RecursionMisses
		}
	}
	s.DiskIOs = t.n
	s.DiskIOsMax = int(t.objs.DiskIos.MaxEntries())
}
