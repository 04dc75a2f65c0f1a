// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/delayacct"
)

var (
	errAccountingOff = fmt.Errorf("the kernel's accounting of block I/O and memory delays is %w (kernel.task_delayacct is 0): "+
		"run sysctl -w kernel.task_delayacct=1, or set delays.enable_accounting", ErrSwitchedOff)
	errAccountingMissing = fmt.Errorf("%w: the kernel is built without delay accounting (CONFIG_TASK_DELAY_ACCT)", errors.ErrUnsupported)
	errAccountingUnknown = errors.New("nothing tells whether the kernel accounts delays (/proc/sys/kernel/task_delayacct is missing)")
)

// beginDelayAccounting looks whether the kernel accounts delays, and switches it on where that is asked for.
func (inv *Inventory) beginDelayAccounting() {
	inv.checkDelayAccounting()
	if inv.accountsDelays || !inv.opts.EnableDelayAccounting || !inv.hasTasks && inv.taskstats == nil {
		return
	}
	if err := delayacct.Enable(inv.opts.ProcRoot); err != nil {
		inv.log.Warn("the kernel's delay accounting stays off", zap.Error(err))
		return
	}
	inv.checkDelayAccounting()
	if inv.accountsDelays {
		inv.log.Info("switched the kernel's delay accounting on, for processes that begin from now on")
	}
}

// checkDelayAccounting looks again: the administrator may switch it at any time.
func (inv *Inventory) checkDelayAccounting() {
	state, err := delayacct.Accounting(inv.opts.ProcRoot)
	inv.mu.Lock()
	defer inv.mu.Unlock()
	inv.accountsDelays, inv.accountingOff = state == delayacct.On, nil
	switch {
	case err != nil:
		inv.accountingOff = fmt.Errorf("is the kernel's delay accounting on? %w", err)
	case state == delayacct.Off:
		inv.accountingOff = errAccountingOff
	case state == delayacct.Missing:
		inv.accountingOff = errAccountingMissing
	case state == delayacct.Unknown:
		inv.accountingOff = errAccountingUnknown
	}
}
