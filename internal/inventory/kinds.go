// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// ErrSwitchedOff is the reason why a Feature is off that the kernel has and the administrator may switch on.
var ErrSwitchedOff = errors.New("switched off")

// Delay is a kind of waiting of tasks.
type Delay = bpf.Delay

// The kinds of Delay.
const (
	DelayCPU          = bpf.DelayCPU
	DelayBlockIO      = bpf.DelayBlockIO
	DelaySwapIn       = bpf.DelaySwapIn
	DelayReclaim      = bpf.DelayReclaim
	DelayThrashing    = bpf.DelayThrashing
	DelayCompact      = bpf.DelayCompact
	DelayWriteProtect = bpf.DelayWriteProtect
	DelayIRQ          = bpf.DelayIRQ
	NumDelays         = bpf.NumDelays
)

// ExitReason is how a main process has ended.
type ExitReason = bpf.ExitReason

// The kinds of ExitReason.
const (
	ExitCompleted  = bpf.ExitCompleted
	ExitError      = bpf.ExitError
	ExitSignal     = bpf.ExitSignal
	ExitOOMKilled  = bpf.ExitOOMKilled
	NumExitReasons = bpf.NumExitReasons
)
