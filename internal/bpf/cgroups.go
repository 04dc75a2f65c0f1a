// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// CgroupEvent reports a change of the cgroup tree.
type CgroupEvent struct {
	Kind   CgroupEventKind
	ID     uint64 // inode number of the cgroup's directory
	Legacy bool   // in the v1 hierarchy of Options.LegacyController, else in the unified one
	Path   string // from the root of the hierarchy
	Cut    bool   // Path is not whole
}

// CgroupEventKind is what happened to a cgroup.
type CgroupEventKind uint32

// The kinds of CgroupEvent.
const (
	CgroupMade    = CgroupEventKind(cgroupCgroupEventKindCGROUP_MADE)
	CgroupEmptied = CgroupEventKind(cgroupCgroupEventKindCGROUP_EMPTIED) // no process in it or below any more
	CgroupRemoved = CgroupEventKind(cgroupCgroupEventKindCGROUP_REMOVED)
)

var errTruncated = errors.New("truncated")

type cgroupTracer struct {
	objs   cgroupObjects
	links  []link.Link
	events *ringbuf.Reader
}

func openCgroups(o Options) (*cgroupTracer, error) {
	spec, err := loadCgroup()
	if err != nil {
		return nil, err
	}
	if o.LegacyController != "" {
		id, err := hierarchyID(o.ProcRoot, o.LegacyController)
		if err != nil {
			return nil, err
		}
		if err := spec.Variables[cgroupVarV1Hierarchy].Set(id); err != nil {
			return nil, err
		}
	}
	t := &cgroupTracer{}
	if err := spec.LoadAndAssign(&t.objs, nil); err != nil {
		return nil, err
	}
	t.links, err = attach(t.objs.OnCgroupMkdir, t.objs.OnCgroupNotifyPopulated, t.objs.OnCgroupRmdir)
	if err != nil {
		return nil, errors.Join(err, t.objs.Close())
	}
	t.events, err = ringbuf.NewReader(t.objs.Events)
	if err != nil {
		return nil, errors.Join(err, closeLinks(t.links), t.objs.Close())
	}
	return t, nil
}

func (t *cgroupTracer) close() error {
	return errors.Join(t.events.Close(), closeLinks(t.links), t.objs.Close())
}

func (t *cgroupTracer) stats(s *Stats) {
	var lost uint64
	if err := t.objs.EventsLost.Get(&lost); err == nil {
		s.EventsLost = lost
	}
}

// CgroupEvents calls fn for each event, in order, until Close; it returns at once without FeatureCgroupEvents. Events that
// it was too slow for are in Stats.EventsLost.
func (t *Tracer) CgroupEvents(fn func(CgroupEvent)) error {
	if t.cgroups == nil {
		return nil
	}
	var rec ringbuf.Record
	for {
		switch err := t.cgroups.events.ReadInto(&rec); {
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read cgroup events: %w", err)
		}
		ev, err := decodeCgroupEvent(rec.RawSample)
		if err != nil {
			return err
		}
		fn(ev)
	}
}

// decodeCgroupEvent reads a struct cgroup_event.
func decodeCgroupEvent(rec []byte) (CgroupEvent, error) {
	const pathOffset = 24
	if len(rec) < pathOffset {
		return CgroupEvent{}, fmt.Errorf("cgroup event of %d bytes: %w", len(rec), errTruncated)
	}
	ne := binary.NativeEndian
	path := rec[pathOffset:]
	n := int(int32(ne.Uint32(rec[16:])))
	ev := CgroupEvent{
		ID:     ne.Uint64(rec[0:]),
		Kind:   CgroupEventKind(ne.Uint32(rec[8:])),
		Legacy: ne.Uint32(rec[12:]) != 0,
		Cut:    n <= 0 || n >= len(path), // n is negative if the kernel could not read it
	}
	if n > 0 && n <= len(path) {
		ev.Path = string(path[:n-1])
	}
	return ev, nil
}

// hierarchyID finds the v1 hierarchy of a controller.
func hierarchyID(procRoot, controller string) (int32, error) {
	if procRoot == "" {
		procRoot = "/proc"
	}
	f, err := os.Open(filepath.Join(procRoot, "cgroups"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// #subsys_name hierarchy num_cgroups enabled
		if fields := strings.Fields(sc.Text()); len(fields) >= 2 && fields[0] == controller {
			id, err := strconv.ParseInt(fields[1], 10, 32)
			return int32(id), err
		}
	}
	return 0, fmt.Errorf("%s: no controller %q", f.Name(), controller)
}

// subsysID gives the index of a controller in css_set.subsys, which depends on the kernel's configuration.
func subsysID(controller string) (int32, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return 0, err
	}
	var enum *btf.Enum
	if err := spec.TypeByName("cgroup_subsys_id", &enum); err != nil {
		return 0, err
	}
	for _, v := range enum.Values {
		if v.Name == controller+"_cgrp_id" {
			return int32(v.Value), nil
		}
	}
	return 0, fmt.Errorf("%w: no cgroup controller %q", ebpf.ErrNotSupported, controller)
}
