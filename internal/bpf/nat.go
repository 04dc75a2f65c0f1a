// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// RetryNAT turns FeatureNetworkNAT on if it was off because connection tracking was not loaded, and is now.
func (t *Tracer) RetryNAT() {
	if t.tcp == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.features {
		f := &t.features[i]
		if f.Name == FeatureNetworkNAT && errors.Is(f.Err, errNoConntrack) {
			f.Err = explain(t.tcp.openNAT())
		}
	}
}

// errNoConntrack is what may change.
var errNoConntrack = fmt.Errorf("%w: nf_conntrack is not loaded", ErrNotSupported)

// openNAT attaches to packets that leave, where the kernel has connection tracking.
func (t *tcpTracer) openNAT() error {
	extra, err := conntrackTypes()
	if err != nil {
		return err
	}
	progs, err := t.load(extra, tcpProgOnNetDevQueue)
	if err != nil {
		return err
	}
	if err := t.attach(progs...); err != nil {
		return err
	}
	return t.objs.HasTranslation.Set(uint32(1))
}

// conntrackTypes gives the types of the module nf_conntrack, none where it is built in.
func conntrackTypes() ([]*btf.Spec, error) {
	const module = "nf_conntrack"
	if _, err := os.Stat(filepath.Join("/sys/module", module)); errors.Is(err, fs.ErrNotExist) {
		return nil, errNoConntrack
	}
	spec, err := btf.LoadKernelModuleSpec(module)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return []*btf.Spec{spec}, nil
}

// AddTranslation tells of a connection that was there before the Tracer: source has dialled destination and talks to
// actual. Adopt uses it, and whoever is connecting now.
func (t *Tracer) AddTranslation(source, destination, actual netip.AddrPort) error {
	if t.tcp == nil {
		return nil
	}
	flow := tcpFlow{Source: endpoint(source), Destination: endpoint(destination)}
	to := tcpTranslation{NotedNs: uint64(Now()), Actual: endpoint(actual)}
	if err := t.tcp.objs.Translations.Update(&flow, &to, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("add the translation of %s: %w", destination, err)
	}
	return t.tcp.objs.HasTranslation.Set(uint32(1))
}

func endpoint(a netip.AddrPort) tcpEndpoint {
	return tcpEndpoint{Addr: a.Addr().As16(), Port: a.Port()}
}
