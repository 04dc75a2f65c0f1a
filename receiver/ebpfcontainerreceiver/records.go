// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cloudmeta"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// Names of the records.
const (
	recordExit    = "container.exit"
	recordOOMKill = "container.oom_kill"
	recordPattern = "container.log.pattern" // a new one
	recordMessage = "container.log.message"
)

// exitSeverities has that of each inventory.ExitReason.
var exitSeverities = [inventory.NumExitReasons]plog.SeverityNumber{
	inventory.ExitCompleted: plog.SeverityNumberInfo,
	inventory.ExitError:     plog.SeverityNumberWarn,
	inventory.ExitSignal:    plog.SeverityNumberWarn,
	inventory.ExitOOMKilled: plog.SeverityNumberError,
}

// recordWriter turns events into log records. README.md, "Log records", lists the attributes.
type recordWriter struct {
	lb        *metadata.LogsBuilder
	resources *resourceWriter
	where     func() cloudmeta.Instance // as in metricsWriter
}

func newRecordWriter(cfg *Config, set receiver.Settings, host node.Identity) *recordWriter {
	return &recordWriter{lb: metadata.NewLogsBuilder(set), resources: newResourceWriter(cfg, host)}
}

// write gives one resource for each container that events have. It sorts them by container, otherwise keeping their order.
func (w *recordWriter) write(events []inventory.Event, observed time.Time) plog.Logs {
	slices.SortStableFunc(events, func(a, b inventory.Event) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Ref.Path, b.Ref.Path))
	})
	if w.where != nil {
		w.resources = w.resources.at(w.where())
	}
	ts := pcommon.NewTimestampFromTime(observed)
	for i := range events {
		e := &events[i]
		w.lb.AppendLogRecord(record(e, ts))
		if i+1 == len(events) || !haveOneResource(e, &events[i+1]) {
			c := inventory.Container{Name: e.Name, Ref: e.Ref, Info: e.Info}
			w.lb.EmitForResource(metadata.WithLogsResource(w.resources.resource(&c)))
		}
	}
	return w.lb.Emit()
}

func haveOneResource(a, b *inventory.Event) bool {
	return a.Name == b.Name && a.Ref == b.Ref && a.Info == b.Info
}

func record(e *inventory.Event, observed pcommon.Timestamp) plog.LogRecord {
	if e.Kind == inventory.EventLog {
		return messageRecord(e, observed)
	}
	lr := plog.NewLogRecord()
	lr.SetTimestamp(pcommon.NewTimestampFromTime(e.At))
	lr.SetObservedTimestamp(observed)
	attrs := lr.Attributes()
	attrs.EnsureCapacity(9)
	severity := plog.SeverityNumberError
	if e.Kind == inventory.EventOOMKill {
		lr.SetEventName(recordOOMKill)
		lr.Body().SetStr(oomKillText(e))
	} else {
		lr.SetEventName(recordExit)
		lr.Body().SetStr(exitText(e))
		if int(e.Reason) < inventory.NumExitReasons { // or the kernel program knows more than we
			severity = exitSeverities[e.Reason]
			attrs.PutStr("container.exit.reason", exitReasons[e.Reason].String())
		}
		putExit(attrs, e)
	}
	lr.SetSeverityNumber(severity)
	lr.SetSeverityText(strings.ToUpper(severity.String()))
	attrs.PutInt("process.pid", int64(e.PID))
	attrs.PutInt("process.vpid", int64(e.InnerPID))
	putKnown(attrs, "process.executable.name", e.Command)
	attrs.PutDouble("process.uptime", e.Life.Seconds())
	if e.MaxRSS > 0 {
		attrs.PutInt("process.memory.rss_peak", toInt64(e.MaxRSS))
	}
	if e.MemoryLimit.OK {
		attrs.PutInt("container.memory.limit", toInt64(e.MemoryLimit.V))
	}
	return lr
}

// messageRecord makes a record of a message, or of the first one of a pattern, which has nothing in it that may be secret.
func messageRecord(e *inventory.Event, observed pcommon.Timestamp) plog.LogRecord {
	m := e.Message
	lr := plog.NewLogRecord()
	if !m.At.IsZero() {
		lr.SetTimestamp(pcommon.NewTimestampFromTime(m.At))
	}
	lr.SetObservedTimestamp(observed)
	lr.SetEventName(recordMessage)
	if m.New {
		lr.SetEventName(recordPattern)
	}
	lr.Body().SetStr(valid(m.Text))
	if severity := logSeverities[m.Level]; severity != plog.SeverityNumberUnspecified {
		lr.SetSeverityNumber(severity)
		lr.SetSeverityText(strings.ToUpper(severity.String()))
	}
	attrs := lr.Attributes()
	attrs.EnsureCapacity(4)
	if m.Hash != "" {
		attrs.PutStr("pattern.hash", m.Hash)
		attrs.PutStr("log.record.template", m.Template)
	}
	switch m.Stream {
	case inventory.LogStdout:
		attrs.PutStr("log.iostream", "stdout")
	case inventory.LogStderr:
		attrs.PutStr("log.iostream", "stderr")
	}
	if strings.HasPrefix(m.Source, "/") {
		attrs.PutStr("log.file.path", valid(m.Source))
	}
	return lr
}

func putExit(attrs pcommon.Map, e *inventory.Event) {
	attrs.PutBool("container.exit.oom_killed", e.Reason == inventory.ExitOOMKilled)
	if e.Signal != 0 {
		attrs.PutStr("process.exit.signal", signalName(e.Signal))
	} else {
		attrs.PutInt("process.exit.code", int64(e.Code))
	}
}

func exitText(e *inventory.Event) string {
	how := fmt.Sprintf("exited with status %d", e.Code)
	switch {
	case e.Reason == inventory.ExitOOMKilled:
		how = "was killed by the OOM killer"
	case e.Signal != 0:
		how = "was killed by " + signalName(e.Signal)
	}
	return fmt.Sprintf("main process %s %s after %s", processText(e), how, durationText(e.Life))
}

func oomKillText(e *inventory.Event) string {
	text := "OOM killer killed " + processText(e)
	if e.MaxRSS > 0 {
		text += ": it had up to " + bytesText(e.MaxRSS) + " of memory"
	}
	if e.MemoryLimit.OK {
		text += ", the limit of the container is " + bytesText(e.MemoryLimit.V)
	}
	return text
}

// processText keeps line breaks and the like out of the text: any program can give itself any name.
func processText(e *inventory.Event) string {
	name := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, valid(e.Command))
	return fmt.Sprintf("%s (pid %d)", name, e.PID)
}

// signalName is a number for real-time signals, on whose names C libraries do not agree.
func signalName(n int) string {
	if name := unix.SignalName(syscall.Signal(n)); name != "" {
		return name
	}
	return strconv.Itoa(n)
}

func durationText(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) + " s"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return d.Round(time.Second).String()
}

func bytesText(n uint64) string {
	value, unit := float64(n), "B"
	for _, larger := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, larger
	}
	return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0") + " " + unit
}
