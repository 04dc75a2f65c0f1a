// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"
	"io/fs"
	"math"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// Why a part is off: few enough words for a metric attribute.
const (
	reasonPermission  = "permission"
	reasonUnsupported = "unsupported"
	reasonError       = "error"
)

// reason puts the error of a part into one of a few words, "" for nil.
func reason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, fs.ErrPermission):
		return reasonPermission
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, fs.ErrNotExist):
		return reasonUnsupported
	}
	return reasonError
}

// observe registers the receiver's own metrics, read from the inventory whenever the collector asks. Shutdown of the
// builder ends them.
func observe(set component.TelemetrySettings, inv containers) (*metadata.TelemetryBuilder, error) {
	tb, err := metadata.NewTelemetryBuilder(set)
	if err != nil {
		return nil, err
	}
	count := func(value func(inventory.Status) uint64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(toInt64(value(inv.Status())))
			return nil
		}
	}
	edges := metric.WithAttributeSet(attribute.NewSet(attribute.String("map", "edges")))

	err = errors.Join(
		tb.RegisterEbpfContainerContainersCallback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(inv.Status().Containers))
			return nil
		}),
		tb.RegisterEbpfContainerFeatureEnabledCallback(func(_ context.Context, o metric.Int64Observer) error {
			observeFeatures(o, inv.Status().Features)
			return nil
		}),
		tb.RegisterEbpfContainerMapEntriesCallback(func(_ context.Context, o metric.Int64Observer) error {
			if st := inv.Status(); st.EdgesMax > 0 {
				o.Observe(int64(st.EdgesLive), edges)
			}
			return nil
		}),
		tb.RegisterEbpfContainerMapLimitCallback(func(_ context.Context, o metric.Int64Observer) error {
			if st := inv.Status(); st.EdgesMax > 0 {
				o.Observe(int64(st.EdgesMax), edges)
			}
			return nil
		}),
		tb.RegisterEbpfContainerCgroupsUnresolvedCallback(
			count(func(st inventory.Status) uint64 { return st.CgroupsUnresolved })),
		tb.RegisterEbpfContainerEdgesFoldedCallback(
			count(func(st inventory.Status) uint64 { return st.EdgesFolded })),
		tb.RegisterEbpfContainerEdgesUnaccountedCallback(
			count(func(st inventory.Status) uint64 { return st.EdgesUnaccounted })),
		tb.RegisterEbpfContainerEventsLostCallback(
			count(func(st inventory.Status) uint64 { return st.EventsLost })),
		tb.RegisterEbpfContainerReadErrorsCallback(
			count(func(st inventory.Status) uint64 { return st.ReadErrors })),
		tb.RegisterEbpfContainerWalkErrorsCallback(
			count(func(st inventory.Status) uint64 { return st.WalkErrors })),
	)
	if err != nil {
		tb.Shutdown()
		return nil, err
	}
	return tb, nil
}

func observeFeatures(o metric.Int64Observer, features []inventory.Feature) {
	for _, f := range features {
		var on int64
		if f.Err == nil {
			on = 1
		}
		o.Observe(on, metric.WithAttributeSet(attribute.NewSet(
			attribute.String("feature", f.Name), attribute.String("reason", reason(f.Err)))))
	}
}

// toInt64 keeps a count that no real host reaches from turning negative.
func toInt64(v uint64) int64 {
	return int64(min(v, math.MaxInt64)) //nolint:gosec // bounded
}
