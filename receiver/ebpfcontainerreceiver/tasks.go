// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// delayKinds has the attribute of each inventory.Delay.
var delayKinds = [inventory.NumDelays]metadata.AttributeDelayKind{
	inventory.DelayCPU:          metadata.AttributeDelayKindCPU,
	inventory.DelayBlockIO:      metadata.AttributeDelayKindBlkio,
	inventory.DelaySwapIn:       metadata.AttributeDelayKindSwapin,
	inventory.DelayReclaim:      metadata.AttributeDelayKindReclaim,
	inventory.DelayThrashing:    metadata.AttributeDelayKindThrashing,
	inventory.DelayCompact:      metadata.AttributeDelayKindCompact,
	inventory.DelayWriteProtect: metadata.AttributeDelayKindWpcopy,
	inventory.DelayIRQ:          metadata.AttributeDelayKindIrq,
}

// exitReasons has the attribute of each inventory.ExitReason.
var exitReasons = [inventory.NumExitReasons]metadata.AttributeExitReason{
	inventory.ExitCompleted: metadata.AttributeExitReasonCompleted,
	inventory.ExitError:     metadata.AttributeExitReasonError,
	inventory.ExitSignal:    metadata.AttributeExitReasonSignal,
	inventory.ExitOOMKilled: metadata.AttributeExitReasonOomKilled,
}

func (w *metricsWriter) recordDelays(ts pcommon.Timestamp, c *inventory.Container) {
	delays := &c.Tasks.Delays
	if v := delays[inventory.DelayCPU]; v.OK {
		w.mb.RecordContainerResourcesCPUDelayDataPoint(ts, v.V.Seconds())
	}
	if v := delays[inventory.DelayBlockIO]; v.OK {
		w.mb.RecordContainerResourcesDiskDelayDataPoint(ts, v.V.Seconds())
	}
	for kind, v := range delays {
		if v.OK {
			w.mb.RecordContainerResourcesDelayDataPoint(ts, v.V.Seconds(), delayKinds[kind])
		}
	}
}

// recordDeaths gives zeros too: a counter that first shows up as 1 is no increase for a Prometheus query.
func (w *metricsWriter) recordDeaths(ts pcommon.Timestamp, c *inventory.Container) {
	if v := c.Tasks.OOMKills; v.OK {
		w.mb.RecordContainerOomKillsDataPoint(ts, toInt64(v.V))
	}
	if v := c.Tasks.Exits; v.OK {
		for reason, n := range v.V {
			w.mb.RecordContainerExitsDataPoint(ts, toInt64(n), exitReasons[reason])
		}
	}
	if v := c.Tasks.Restarts; v.OK {
		w.mb.RecordContainerRestartsDataPoint(ts, toInt64(v.V))
		if strings.HasPrefix(c.Name, "/k8s/") {
			w.mb.RecordK8sContainerRestartCountDataPoint(ts, toInt64(v.V))
		}
	}
}
