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

	"github.com/ebpfcontainer/ebpfcontainer/internal/cloudmeta"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// Why a part is off: few enough words for a metric attribute.
const (
	reasonPermission  = "permission"
	reasonUnsupported = "unsupported"
	reasonSwitchedOff = "switched_off"
	reasonNotHost     = "not_host"
	reasonError       = "error"
)

// reason puts the error of a part into one of a few words, "" for nil.
func reason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, node.ErrNotHost): // whatever kept us from reading the host's
		return reasonNotHost
	case errors.Is(err, fs.ErrPermission):
		return reasonPermission
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, fs.ErrNotExist):
		return reasonUnsupported
	case errors.Is(err, inventory.ErrSwitchedOff):
		return reasonSwitchedOff
	}
	return reasonError
}

// observe registers the receiver's own metrics, read from the inventory whenever the collector asks. They carry the id of
// the receiver, since all of one process share their instruments. Shutdown of the builder ends them. What the logs signal
// drops adds to what the inventory does.
func observe(set component.TelemetrySettings, id component.ID, r *running) (*metadata.TelemetryBuilder, error) {
	inv, dropped := r.containers, r.dropped
	tb, err := metadata.NewTelemetryBuilder(set)
	if err != nil {
		return nil, err
	}
	alone := ownAttributes(id)
	observe := func(value func(inventory.Status) uint64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(toInt64(value(inv.Status())), alone)
			return nil
		}
	}
	err = errors.Join(
		tb.RegisterEbpfContainerFeatureEnabledCallback(func(_ context.Context, o metric.Int64Observer) error {
			observeFeatures(o, id, inv.Status().Features)
			return nil
		}),
		tb.RegisterEbpfContainerMapEntriesCallback(observeMaps(id, inv, func(m table) int { return m.live })),
		tb.RegisterEbpfContainerMapLimitCallback(observeMaps(id, inv, func(m table) int { return m.limit })),
		tb.RegisterEbpfContainerContainersCallback(
			observe(func(st inventory.Status) uint64 { return uint64(st.Containers) })), //nolint:gosec // not negative
		tb.RegisterEbpfContainerCgroupsUnresolvedCallback(
			observe(func(st inventory.Status) uint64 { return st.CgroupsUnresolved })),
		tb.RegisterEbpfContainerEdgesFoldedCallback(
			observe(func(st inventory.Status) uint64 { return st.EdgesFolded })),
		tb.RegisterEbpfContainerEdgesUnaccountedCallback(
			observe(func(st inventory.Status) uint64 { return st.EdgesUnaccounted })),
		tb.RegisterEbpfContainerListenersFoldedCallback(
			observe(func(st inventory.Status) uint64 { return st.ListenersFolded })),
		tb.RegisterEbpfContainerSocketsAdoptedCallback(
			observe(func(st inventory.Status) uint64 { return st.SocketsAdopted })),
		tb.RegisterEbpfContainerEventsLostCallback(
			observe(func(st inventory.Status) uint64 { return st.EventsLost })),
		tb.RegisterEbpfContainerEventsDroppedCallback(
			observe(func(st inventory.Status) uint64 { return st.EventsDropped + dropped.events.Load() })),
		tb.RegisterEbpfContainerTasksUnaccountedCallback(
			observe(func(st inventory.Status) uint64 { return st.TasksUnaccounted })),
		tb.RegisterEbpfContainerTasksUnknownCallback(
			observe(func(st inventory.Status) uint64 { return st.TasksUnknown })),
		tb.RegisterEbpfContainerDelayAnomaliesCallback(
			observe(func(st inventory.Status) uint64 { return st.DelayAnomalies })),
		tb.RegisterEbpfContainerDiskIoUnaccountedCallback(
			observe(func(st inventory.Status) uint64 { return st.DiskIOUnaccounted })),
		tb.RegisterEbpfContainerMountsSkippedCallback(
			observe(func(st inventory.Status) uint64 { return st.MountsSkipped })),
		tb.RegisterEbpfContainerRuntimeConnectedCallback(observeRuntimes(id, inv, func(r inventory.RuntimeStatus) int64 {
			if r.Connected {
				return 1
			}
			return 0
		})),
		tb.RegisterEbpfContainerRuntimeErrorsCallback(observeRuntimes(id, inv, func(r inventory.RuntimeStatus) int64 {
			return toInt64(r.Errors)
		})),
		observeLogs(tb, id, r),
		observeCloud(tb, id, r.cloud),
		tb.RegisterEbpfContainerZonesErrorsCallback(
			observe(func(st inventory.Status) uint64 { return st.ZonesErrors })),
		tb.RegisterEbpfContainerReadErrorsCallback(
			observe(func(st inventory.Status) uint64 { return st.ReadErrors })),
		tb.RegisterEbpfContainerWalkErrorsCallback(
			observe(func(st inventory.Status) uint64 { return st.WalkErrors })),
	)
	if err != nil {
		tb.Shutdown()
		return nil, err
	}
	return tb, nil
}

// observeLogs registers what tells of the reading of logs.
func observeLogs(tb *metadata.TelemetryBuilder, id component.ID, r *running) error {
	inv, dropped, alone := r.containers, r.dropped, ownAttributes(id)
	observe := func(value func(*inventory.Status) uint64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			st := inv.Status()
			o.Observe(toInt64(value(&st)), alone)
			return nil
		}
	}
	return errors.Join(
		tb.RegisterEbpfContainerFileWritesLostCallback(
			observe(func(st *inventory.Status) uint64 { return st.FileWritesLost })),
		tb.RegisterEbpfContainerLogFilesSkippedCallback(
			observe(func(st *inventory.Status) uint64 { return st.LogFilesSkipped + st.LogFilesUnseen })),
		tb.RegisterEbpfContainerLogFilesCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.Files.Sources })),
		tb.RegisterEbpfContainerLogFilesOpenCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.Files.OpenFiles })),
		tb.RegisterEbpfContainerLogMessagesCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.Messages })),
		tb.RegisterEbpfContainerLogPatternsCallback(
			observe(func(st *inventory.Status) uint64 { return uint64(st.Logs.Patterns) })), //nolint:gosec // not negative
		tb.RegisterEbpfContainerLogLinesCutCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.Files.Cut + st.Logs.Journal.CutFields })),
		tb.RegisterEbpfContainerLogRecordsInvalidCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.Files.Invalid })),
		tb.RegisterEbpfContainerLogReadErrorsCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.Files.Errors })),
		tb.RegisterEbpfContainerLogJournalDamagedCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.Journal.Damaged + st.Logs.Journal.DamagedFields })),
		tb.RegisterEbpfContainerLogEntriesUnclaimedCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.JournalUnknown })),
		tb.RegisterEbpfContainerLogRecordsDroppedCallback(
			observe(func(st *inventory.Status) uint64 {
				return st.Logs.Untold + st.Logs.Suppressed + st.MessagesDropped + dropped.messages.Load()
			})),
		tb.RegisterEbpfContainerLogCheckpointErrorsCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.CheckpointErrors })),
		tb.RegisterEbpfContainerLogUncleanStartsCallback(
			observe(func(st *inventory.Status) uint64 { return st.Logs.UncleanStarts })),
		tb.RegisterEbpfContainerLogBytesLostCallback(func(_ context.Context, o metric.Int64Observer) error {
			lost := inv.Status().Logs.Files.Lost
			for why, n := range map[metadata.AttributeLogLoss]uint64{
				metadata.AttributeLogLossTruncated: lost.Truncated,
				metadata.AttributeLogLossDeleted:   lost.Deleted,
				metadata.AttributeLogLossAbandoned: lost.Abandoned,
			} {
				o.Observe(toInt64(n), ownAttributes(id, attribute.String("reason", why.String())))
			}
			return nil
		}),
	)
}

// observeCloud registers what tells of the metadata service, if one is asked.
func observeCloud(tb *metadata.TelemetryBuilder, id component.ID, cloud *cloudmeta.Watcher) error {
	if cloud == nil {
		return nil
	}
	return errors.Join(
		tb.RegisterEbpfContainerCloudRequestsCallback(func(_ context.Context, o metric.Int64Observer) error {
			if st := cloud.Status(); st.Asking {
				o.Observe(toInt64(st.Requests), ownAttributes(id))
			}
			return nil
		}),
		tb.RegisterEbpfContainerCloudFailuresCallback(func(_ context.Context, o metric.Int64Observer) error {
			for why, n := range cloud.Status().Failures {
				o.Observe(toInt64(n), ownAttributes(id, attribute.String("failure", string(why))))
			}
			return nil
		}),
	)
}

// ownAttributes are those of one of the receiver's own metrics.
func ownAttributes(id component.ID, more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(append(more, attribute.String("receiver", id.String()))...))
}

// table is one in the kernel.
type table struct {
	name        string
	live, limit int
}

// observeMaps gives a value of each table that there is.
func observeMaps(id component.ID, inv containers, value func(table) int) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		st := inv.Status()
		for _, m := range []table{
			{name: "edges", live: st.EdgesLive, limit: st.EdgesMax},
			{name: "listeners", live: st.ListenersLive, limit: st.ListenersMax},
			{name: "usages", live: st.UsagesLive, limit: st.UsagesMax},
			{name: "disk_ios", live: st.DiskIOLive, limit: st.DiskIOMax},
		} {
			if m.limit > 0 {
				o.Observe(int64(value(m)), ownAttributes(id, attribute.String("map", m.name)))
			}
		}
		return nil
	}
}

// observeRuntimes gives a value of each runtime that there is.
func observeRuntimes(id component.ID, inv containers, value func(inventory.RuntimeStatus) int64) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		for _, r := range inv.Status().Runtimes {
			o.Observe(value(r), ownAttributes(id, attribute.String("runtime", r.Name)))
		}
		return nil
	}
}

func observeFeatures(o metric.Int64Observer, id component.ID, features []inventory.Feature) {
	for _, f := range features {
		var on int64
		if f.Err == nil {
			on = 1
		}
		o.Observe(on, ownAttributes(id, attribute.String("feature", f.Name), attribute.String("reason", reason(f.Err))))
	}
}

// toInt64 keeps a count that no real host reaches from turning negative.
func toInt64(v uint64) int64 {
	return int64(min(v, math.MaxInt64)) //nolint:gosec // bounded
}
