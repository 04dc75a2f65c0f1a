// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
)

var (
	errNoCilium           = errors.New("no map of Cilium is pinned")
	errCiliumLayout error = &refusal{text: "this version of Cilium is not known", kind: errors.ErrUnsupported}
)

// ciliumLayout is a map of Cilium as we know it, the first of names that is there. See docs/cilium.md.
type ciliumLayout struct {
	ours       string // the map whose place it takes
	names      []string
	keySize    uint32
	valueSizes []uint32 // that begin with what we read
}

var ciliumLayouts = []ciliumLayout{
	{tcpMapCiliumSockets4, []string{"cilium_lb4_reverse_sk"}, 16, []uint32{8}},
	{tcpMapCiliumSockets6, []string{"cilium_lb6_reverse_sk"}, 32, []uint32{20}},
	{tcpMapCiliumFlows4, []string{"cilium_ct4_global"}, 14, []uint32{56}},
	{tcpMapCiliumFlows6, []string{"cilium_ct6_global"}, 38, []uint32{56}},
	{tcpMapCiliumBackends4, []string{"cilium_lb4_backends_v3", "cilium_lb4_backends_v2"}, 4, []uint32{12, 8}},
	{tcpMapCiliumBackends6, []string{"cilium_lb6_backends_v3", "cilium_lb6_backends_v2"}, 4, []uint32{24, 20}},
}

// open gives nil where no such map is pinned in dir.
func (l *ciliumLayout) open(dir string) (*ebpf.Map, error) {
	for _, name := range l.names {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err != nil {
			continue // who may not look there learns no more than that
		}
		m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return nil, fmt.Errorf("open Cilium's map %s: %w", name, err)
		}
		if (m.Type() == ebpf.Hash || m.Type() == ebpf.LRUHash) && m.KeySize() == l.keySize &&
			slices.Contains(l.valueSizes, m.ValueSize()) {
			return m, nil
		}
		err = fmt.Errorf("%w: its map %s is a %s with keys of %d and values of %d bytes",
			errCiliumLayout, name, m.Type(), m.KeySize(), m.ValueSize())
		_ = m.Close()
		return nil, err
	}
	return nil, nil
}

// ciliumMaps are the maps of Cilium by the name of ours whose place they take.
type ciliumMaps map[string]*ebpf.Map

// openCilium finds the maps below the directory where a BPF file system is mounted.
func openCilium(root string) (ciliumMaps, error) {
	dir := filepath.Join(cmp.Or(root, "/sys/fs/bpf"), "tc/globals")
	maps := ciliumMaps{}
	for i := range ciliumLayouts {
		m, err := ciliumLayouts[i].open(dir)
		if err != nil {
			maps.close()
			return nil, err
		}
		if m != nil {
			maps[ciliumLayouts[i].ours] = m
		}
	}
	if len(maps) == 0 {
		return nil, errNoCilium
	}
	return maps, nil
}

// fit makes a spec one that takes the maps as replacements.
func (maps ciliumMaps) fit(spec *ebpf.CollectionSpec) error {
	for name, m := range maps {
		s := spec.Maps[name]
		s.Type, s.KeySize, s.ValueSize = m.Type(), m.KeySize(), m.ValueSize()
		s.MaxEntries, s.Flags = m.MaxEntries(), m.Flags()
	}
	return spec.Variables[tcpVarHasCilium].Set(true)
}

func (maps ciliumMaps) close() {
	for _, m := range maps {
		_ = m.Close()
	}
}

// loadFirst loads the programs that cannot be left out and all maps, without Cilium's where that is refused.
func (t *tcpTracer) loadFirst(bpffsRoot string) error {
	if t.errCilium = t.loadWithCilium(bpffsRoot); t.errCilium == nil {
		return nil
	}
	return t.spec.LoadAndAssign(&t.objs, nil)
}

func (t *tcpTracer) loadWithCilium(bpffsRoot string) error {
	maps, err := openCilium(bpffsRoot)
	if err != nil {
		return err
	}
	defer maps.close()
	spec := t.spec.Copy()
	if err := maps.fit(spec); err != nil {
		return err
	}
	if err := spec.LoadAndAssign(&t.objs, &ebpf.CollectionOptions{MapReplacements: maps}); err != nil {
		return err
	}
	t.spec = spec
	return nil
}
