// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

func (w *nodeWriter) recordDevices(ts pcommon.Timestamp, st *nodeStats) {
	for i := range st.Disks {
		w.recordDisk(ts, &st.Disks[i])
	}
	for i := range st.Arrays {
		w.recordArray(ts, &st.Arrays[i])
	}
	for i := range st.Interfaces {
		w.recordInterface(ts, &st.Interfaces[i])
	}
}

func (w *nodeWriter) recordDisk(ts pcommon.Timestamp, d *node.Disk) {
	w.mb.RecordNodeResourcesDiskReadsDataPoint(ts, toInt64(d.Reads), d.Name)
	w.mb.RecordNodeResourcesDiskWritesDataPoint(ts, toInt64(d.Writes), d.Name)
	w.mb.RecordNodeResourcesDiskReadDataPoint(ts, toInt64(d.Read), d.Name)
	w.mb.RecordNodeResourcesDiskWrittenDataPoint(ts, toInt64(d.Written), d.Name)
	w.mb.RecordNodeResourcesDiskReadTimeDataPoint(ts, d.ReadTime.Seconds(), d.Name)
	w.mb.RecordNodeResourcesDiskWriteTimeDataPoint(ts, d.WriteTime.Seconds(), d.Name)
	w.mb.RecordNodeResourcesDiskIoTimeDataPoint(ts, d.IOTime.Seconds(), d.Name)
}

func (w *nodeWriter) recordArray(ts pcommon.Timestamp, a *node.Array) {
	w.mb.RecordNodeDiskArrayInfoDataPoint(ts, 1, a.Name, a.Level, a.State)
	for _, disks := range [...]struct {
		state metadata.AttributeArrayDiskState
		n     uint64
	}{
		{metadata.AttributeArrayDiskStateActive, a.Active},
		{metadata.AttributeArrayDiskStateFailed, a.Failed},
		{metadata.AttributeArrayDiskStateSpare, a.Spare},
		{metadata.AttributeArrayDiskStateDown, a.Down},
	} {
		w.mb.RecordNodeDiskArrayDisksDataPoint(ts, toInt64(disks.n), a.Name, disks.state)
	}
	if v := a.Synced; v.OK {
		w.mb.RecordNodeDiskArraySyncedDataPoint(ts, v.V, a.Name)
	}
}

func (w *nodeWriter) recordHealth(ts pcommon.Timestamp, h *node.Health) {
	if v := h.Passed; v.OK {
		w.mb.RecordNodeDiskHealthStatusDataPoint(ts, oneIf(v.V), h.Disk)
	}
	if v := h.Temperature; v.OK {
		w.mb.RecordNodeDiskHealthTemperatureDataPoint(ts, int64(v.V), h.Disk)
	}
	if v := h.PercentageUsed; v.OK {
		w.mb.RecordNodeDiskHealthPercentageUsedDataPoint(ts, int64(v.V), h.Disk)
	}
	if v := h.MediaErrors; v.OK {
		w.mb.RecordNodeDiskHealthMediaErrorsDataPoint(ts, toInt64(v.V), h.Disk)
	}
	if v := h.PowerOn; v.OK {
		w.mb.RecordNodeDiskHealthPowerOnDataPoint(ts, v.V.Seconds(), h.Disk)
	}
}

func (w *nodeWriter) recordInterface(ts pcommon.Timestamp, in *node.Interface) {
	if v := in.Up; v.OK {
		w.mb.RecordNodeNetInterfaceUpDataPoint(ts, oneIf(v.V), in.Name)
	}
	for _, addr := range in.Addresses {
		w.mb.RecordNodeNetInterfaceIPDataPoint(ts, 1, in.Name, addr.String())
	}
	w.mb.RecordNodeNetReceivedDataPoint(ts, toInt64(in.Receive.Bytes), in.Name)
	w.mb.RecordNodeNetReceivedPacketsDataPoint(ts, toInt64(in.Receive.Packets), in.Name)
	w.mb.RecordNodeNetReceiveErrorsDataPoint(ts, toInt64(in.Receive.Errors), in.Name)
	w.mb.RecordNodeNetReceiveDropsDataPoint(ts, toInt64(in.Receive.Drops), in.Name)
	w.mb.RecordNodeNetTransmittedDataPoint(ts, toInt64(in.Transmit.Bytes), in.Name)
	w.mb.RecordNodeNetTransmittedPacketsDataPoint(ts, toInt64(in.Transmit.Packets), in.Name)
	w.mb.RecordNodeNetTransmitErrorsDataPoint(ts, toInt64(in.Transmit.Errors), in.Name)
	w.mb.RecordNodeNetTransmitDropsDataPoint(ts, toInt64(in.Transmit.Drops), in.Name)
}

func oneIf(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
