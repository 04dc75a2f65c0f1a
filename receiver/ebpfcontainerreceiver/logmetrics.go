// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// levels has the attribute of each inventory.LogLevel.
var levels = [inventory.NumLogLevels]metadata.AttributeLevel{
	inventory.LogUnknown:  metadata.AttributeLevelUnknown,
	inventory.LogDebug:    metadata.AttributeLevelDebug,
	inventory.LogInfo:     metadata.AttributeLevelInfo,
	inventory.LogWarning:  metadata.AttributeLevelWarning,
	inventory.LogError:    metadata.AttributeLevelError,
	inventory.LogCritical: metadata.AttributeLevelCritical,
}

// logSeverities has that of each inventory.LogLevel.
var logSeverities = [inventory.NumLogLevels]plog.SeverityNumber{
	inventory.LogUnknown:  plog.SeverityNumberUnspecified,
	inventory.LogDebug:    plog.SeverityNumberDebug,
	inventory.LogInfo:     plog.SeverityNumberInfo,
	inventory.LogWarning:  plog.SeverityNumberWarn,
	inventory.LogError:    plog.SeverityNumberError,
	inventory.LogCritical: plog.SeverityNumberFatal,
}

// dropReasons has the attribute of each inventory.LogDrop.
var dropReasons = [...]metadata.AttributeLogDropReason{metadata.AttributeLogDropReasonRateLimit}

// recordLogs records what was logged: series that have ended, or those that have not. It tells whether there are others. What
// an earlier process has counted is in them, so they may have begun before the container was seen.
func (w *metricsWriter) recordLogs(ts pcommon.Timestamp, logs *inventory.LogCounts, ended bool) (others bool) {
	if logs == nil {
		return false
	}
	for i := 0; i < len(logs.Sources) && !ended; i++ {
		s := &logs.Sources[i]
		w.begin(pcommon.NewTimestampFromTime(s.Start))
		source := valid(s.Source)
		w.mb.RecordContainerLogBytesDataPoint(ts, toInt64(s.Bytes), source)
		for _, why := range inventory.LogDrops() {
			w.mb.RecordContainerLogLinesDroppedDataPoint(ts, toInt64(s.Dropped[why]), source, dropReasons[why])
		}
	}
	for i := range logs.Patterns {
		p := &logs.Patterns[i]
		if p.Ended != ended {
			others = true
			continue
		}
		w.begin(pcommon.NewTimestampFromTime(p.Start))
		w.mb.RecordContainerLogMessagesDataPoint(ts, toInt64(p.Messages), valid(p.Source), levels[p.Level], p.Hash, p.Template)
	}
	return others
}
