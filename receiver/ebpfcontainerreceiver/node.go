// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/metric"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// nodeReader reads the host itself. A nil one is switched off and reads nothing. Its method read is used by one goroutine.
type nodeReader struct {
	reader *node.Reader // nil when there is no host to be read
	err    error        // why

	timeout time.Duration   // of a reading
	pending chan *nodeStats // has the answer of the reading under way, or of one that came late; nil without one
	closing context.Context // of all readings
	cancel  func()          // ends it
}

// nodeStats are those of one moment.
type nodeStats struct {
	At time.Time
	node.Stats
}

// openNode never fails: without a host the containers are given all the same.
func openNode(cfg *Config) *nodeReader {
	c := &cfg.Node
	if !c.Enabled {
		return nil
	}
	r := &nodeReader{timeout: cfg.Timeout}
	r.closing, r.cancel = context.WithCancel(context.Background())
	r.reader, r.err = node.Open(node.Options{
		Root:       cfg.RootPath,
		CPU:        c.CPU,
		Memory:     c.Memory,
		Disks:      c.Disks,
		DiskHealth: c.DiskHealth,
		Network:    c.Network,
		Pressure:   c.Pressure,
		Interfaces: patterns(c.Interfaces),
	})
	return r
}

// read begins to read, unless a reading is under way. The function that it returns waits for the end of that, and leaves half of
// the time until ctx ends to those who get the metrics. A reading that comes later is given the next time.
func (r *nodeReader) read(ctx context.Context) func() *nodeStats {
	if r == nil {
		return func() *nodeStats { return nil }
	}
	if r.reader == nil {
		return func() *nodeStats { return &nodeStats{At: time.Now()} }
	}
	if r.pending == nil && ctx.Err() == nil {
		r.begin()
	}
	return func() *nodeStats { return r.wait(ctx) }
}

func (r *nodeReader) wait(ctx context.Context) *nodeStats {
	patience := r.timeout / 2
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline) / 2
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		select {
		case st := <-r.pending:
			r.pending = nil
			if st != nil || ctx.Err() != nil || r.closing.Err() != nil {
				return st
			}
			r.begin() // the reading from before took too long
		case <-ctx.Done():
			if len(r.pending) == 0 { // nor was it there before ctx ended
				return nil
			}
		}
	}
}

// begin begins a reading. Its answer is nil when it took too long: of half a reading one could not tell what is gone from what
// was not read.
func (r *nodeReader) begin() {
	answer := make(chan *nodeStats, 1) // so that the goroutine ends when nobody waits any more
	r.pending = answer
	go func() {
		ctx, cancel := context.WithTimeout(r.closing, r.timeout)
		defer cancel()
		st := &nodeStats{At: time.Now()}
		st.Stats = r.reader.Read(ctx)
		if ctx.Err() != nil {
			st = nil
		}
		answer <- st
	}()
}

// features tells which parts are read well.
func (r *nodeReader) features() []inventory.Feature {
	switch {
	case r == nil:
		return nil
	case r.reader == nil:
		return []inventory.Feature{{Name: "node", Err: r.err}}
	}
	var out []inventory.Feature
	for _, p := range r.reader.Status().Parts {
		out = append(out, inventory.Feature{Name: nodeFeature(p.Part), Err: p.Err})
	}
	return out
}

func nodeFeature(p node.Part) string { return "node_" + string(p) }

// featuresToTell leaves out what is nothing to warn of at the start: what this host does not have, and disks, which answer later
// or, as most virtual ones, never.
func (r *nodeReader) featuresToTell() []inventory.Feature {
	return slices.DeleteFunc(r.features(), func(f inventory.Feature) bool {
		isThere := !errors.Is(f.Err, fs.ErrNotExist) || errors.Is(f.Err, node.ErrNotHost) || r.reader == nil
		return !isThere || f.Name == nodeFeature(node.PartDiskHealth)
	})
}

// observe registers the receiver's own metrics of the node. Shutdown of the builder ends them.
func (r *nodeReader) observe(tb *metadata.TelemetryBuilder, id component.ID) error {
	if r == nil {
		return nil
	}
	return errors.Join(
		tb.RegisterEbpfContainerFeatureEnabledCallback(func(_ context.Context, o metric.Int64Observer) error {
			observeFeatures(o, id, r.features())
			return nil
		}),
		tb.RegisterEbpfContainerNodeReadErrorsCallback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(toInt64(r.readErrors()), ownAttributes(id))
			return nil
		}),
	)
}

func (r *nodeReader) readErrors() uint64 {
	if r.reader == nil {
		return 0
	}
	var all uint64
	for _, p := range r.reader.Status().Parts {
		all += p.Errors
	}
	return all
}

// close waits for the reading under way, if that ends soon. One that hangs ends with its file.
func (r *nodeReader) close() error {
	if r == nil || r.reader == nil {
		return nil
	}
	r.cancel()
	err := r.reader.Close()
	if r.pending != nil {
		select {
		case <-r.pending:
		case <-time.After(time.Second):
		}
	}
	if err != nil {
		return fmt.Errorf("close the reader of the node: %w", err)
	}
	return nil
}
