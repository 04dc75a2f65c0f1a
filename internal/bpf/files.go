// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// FileWrite reports that a task of a pair of cgroups has written to a regular file that it was not seen writing to before. A
// file is told once, or again after some 16,000 others.
//
// A write is seen when it makes a page of the page cache dirty or changes the file's times, be it by write, truncate or a
// mapping. Not seen are writes to a file without a name (deleted, O_TMPFILE), direct I/O, clones of extents, mappings on tmpfs,
// and what ZFS, and FUSE without its write-back cache, do past the page cache.
type FileWrite struct {
	// CgroupV2 is in the unified hierarchy, CgroupV1 in the one of Options.LegacyController, 0 if there is none.
	CgroupV2, CgroupV1 uint64
	PID                int // of the process, in the host's PID namespace
	// Device is that of the superblock, as unix.Mkdev makes it and as in /proc/PID/mountinfo. What stat tells is another one on
	// btrfs, where each subvolume has its own, and on overlayfs, where the file here is the one of the upper layer.
	Device uint64
	Inode  uint64
	// Size is in bytes, before the write. On tmpfs, and where the page was dirty already, a write in the same tick of the kernel
	// (1 to 10 ms) as an earlier change of the file, such as its making, is not seen: if another follows, it is in Size.
	Size uint64
	// Path is from the root of the file system, not of a mount; "" if it is unknown. A file with several names has one of them.
	Path string
	Cut  bool // the beginning of Path is missing: it has more than 32 names or 512 bytes
}

// restAfterWrites is how late a FileWrite may be if there was one shortly before.
const restAfterWrites = 5 * time.Millisecond

type fileTracer struct {
	objs   fileObjects
	links  []link.Link
	writes *ringbuf.Reader
}

func openFiles(o Options) (*fileTracer, error) {
	spec, err := fileSpec(o)
	if err != nil {
		return nil, err
	}
	return startFiles(spec)
}

func fileSpec(o Options) (*ebpf.CollectionSpec, error) {
	spec, err := loadFile()
	if err != nil {
		return nil, err
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	// Renamed in Linux 5.18; what we read of it is the same.
	if _, err := kernel.AnyTypeByName("btf_trace_writeback_dirty_folio"); errors.Is(err, btf.ErrNotFound) {
		spec.Programs[fileProgOnDirtyFolio].AttachTo = "writeback_dirty_page"
	}
	if o.LegacyController == "" {
		return spec, nil
	}
	subsys, err := subsysID(o.LegacyController)
	if err != nil {
		return nil, err
	}
	return spec, spec.Variables[fileVarV1Subsys].Set(subsys)
}

func startFiles(spec *ebpf.CollectionSpec) (*fileTracer, error) {
	t := &fileTracer{}
	err := spec.LoadAndAssign(&t.objs, nil)
	if err != nil {
		return nil, err
	}
	if t.writes, err = ringbuf.NewReader(t.objs.FileWrites); err != nil {
		return nil, errors.Join(err, t.objs.Close())
	}
	if t.links, err = attach(t.objs.OnDirtyFolio, t.objs.OnDirtyInode); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *fileTracer) close() error {
	return errors.Join(t.writes.Close(), closeLinks(t.links), t.objs.Close())
}

func (t *fileTracer) stats(s *Stats) {
	var n uint64
	if err := t.objs.WritesLost.Get(&n); err == nil {
		s.FileWritesLost = n
	}
	if err := t.objs.WritesSkipped.Get(&n); err == nil {
		s.FileWritesSkipped = n
	}
}

// FileWrites calls fn for each, in order, until Close; it returns at once without FeatureFileWrites. At most 200 are told in
// 100 ms, not counting files whose name contains ".log" or that are below a directory named log or logs. What is more is in
// Stats.FileWritesSkipped, what fn was too slow for in Stats.FileWritesLost; both are told when the file is written to again.
func (t *Tracer) FileWrites(fn func(FileWrite)) error {
	if t.files == nil {
		return nil
	}
	var rec ringbuf.Record
	for {
		switch err := t.files.writes.ReadInto(&rec); {
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read file writes: %w", err)
		}
		w, err := decodeFileWrite(rec.RawSample)
		if err != nil {
			return err
		}
		fn(w)
		if rec.Remaining == 0 {
			// For each record that finds nothing unread the kernel interrupts itself to wake us, which costs the writer
			// more than all else.
			time.Sleep(restAfterWrites)
		}
	}
}

// decodeFileWrite reads a struct file_write.
func decodeFileWrite(rec []byte) (FileWrite, error) {
	const namesOffset = 48
	if len(rec) < namesOffset {
		return FileWrite{}, fmt.Errorf("file write of %d bytes: %w", len(rec), errTruncated)
	}
	ne := binary.NativeEndian
	names := rec[namesOffset:]
	n := ne.Uint32(rec[40:])
	if uint64(n) > uint64(len(names)) {
		return FileWrite{}, fmt.Errorf("file write of %d bytes with %d of names: %w", len(rec), n, errTruncated)
	}
	dev := ne.Uint32(rec[32:])
	w := FileWrite{
		CgroupV2: ne.Uint64(rec[0:]), CgroupV1: ne.Uint64(rec[8:]),
		Inode:  ne.Uint64(rec[16:]),
		Size:   ne.Uint64(rec[24:]),
		Device: unix.Mkdev(dev>>minorBits, dev&(1<<minorBits-1)),
		PID:    int(ne.Uint32(rec[36:])),
		Cut:    ne.Uint32(rec[44:]) != 0,
		Path:   pathOf(string(names[:n])),
	}
	if !w.Cut {
		w.Path = "/" + w.Path
	}
	return w, nil
}

// pathOf puts names, each with a final NUL and that of the file first, in the order of a path without its first slash.
func pathOf(names string) string {
	parts := strings.Split(strings.TrimSuffix(names, "\x00"), "\x00")
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}
