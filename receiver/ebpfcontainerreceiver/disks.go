// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// recordDevices records the I/O by disk, which is the twin of that by file system in the words of the conventions.
func (w *metricsWriter) recordDevices(ts pcommon.Timestamp, c *inventory.Container) {
	if !w.diskIO {
		return
	}
	for _, d := range c.Stats.Devices {
		dev := strconv.FormatUint(uint64(d.Major), 10) + ":" + strconv.FormatUint(uint64(d.Minor), 10)
		w.mb.RecordContainerDiskIoDataPoint(ts, toInt64(d.ReadBytes), metadata.AttributeDiskIoDirectionRead, dev)
		w.mb.RecordContainerDiskIoDataPoint(ts, toInt64(d.WriteBytes), metadata.AttributeDiskIoDirectionWrite, dev)
	}
}

func (w *metricsWriter) recordDisk(ts pcommon.Timestamp, d *inventory.Disk) {
	mountPoint, device, volume := valid(d.MountPoint), valid(d.Device), valid(d.Volume)
	if u := d.Usage; u.OK {
		w.mb.RecordContainerResourcesDiskSizeDataPoint(ts, toInt64(u.V.Size), device, mountPoint, volume)
		w.mb.RecordContainerResourcesDiskUsedDataPoint(ts, toInt64(u.V.Used), device, mountPoint, volume)
		w.mb.RecordContainerResourcesDiskReservedDataPoint(ts, toInt64(u.V.Reserved), device, mountPoint, volume)
	}
	if io := d.IO; io.OK {
		w.mb.RecordContainerResourcesDiskReadsDataPoint(ts, toInt64(io.V.Reads), device, mountPoint, volume)
		w.mb.RecordContainerResourcesDiskWritesDataPoint(ts, toInt64(io.V.Writes), device, mountPoint, volume)
		w.mb.RecordContainerResourcesDiskReadDataPoint(ts, toInt64(io.V.ReadBytes), device, mountPoint, volume)
		w.mb.RecordContainerResourcesDiskWrittenDataPoint(ts, toInt64(io.V.WriteBytes), device, mountPoint, volume)
	}
}
