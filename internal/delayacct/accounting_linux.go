// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// State of the kernel's delay accounting.
type State int

const (
	// Unknown says that nothing that may be read tells.
	Unknown State = iota
	// Off says that delays other than those for a CPU are not counted. Before Linux 5.14 those for a CPU are not either.
	Off
	// On says that tasks which begin from now on have their delays counted.
	On
	// Missing says that the kernel was built without CONFIG_TASK_DELAY_ACCT: it counts no delays and none can be switched on.
	Missing
)

// String returns the State as a word.
func (s State) String() string {
	switch s {
	case Off:
		return "off"
	case On:
		return "on"
	case Missing:
		return "missing"
	default:
		return "unknown"
	}
}

// switchFile is the switch below the root of /proc: since Linux 5.14 (commit e4042ad49235), which also made off the default.
const switchFile = "sys/kernel/task_delayacct"

// Accounting tells whether the kernel counts delays. procRoot is where the host's /proc is.
//
// A kernel older than 5.14 has no switch: it counts unless booted with nodelayacct or built without, which its
// configuration tells where /proc/config.gz is, and otherwise taskstats, if this process may ask it. Unknown without an
// error is what remains.
func Accounting(procRoot string) (State, error) {
	return accounting(procRoot, countsOwnThread)
}

func accounting(procRoot string, countsOwn func() (bool, error)) (State, error) {
	name := filepath.Join(procRoot, switchFile)
	b, err := os.ReadFile(name)
	switch {
	case err == nil:
		switch string(bytes.TrimSpace(b)) {
		case "0":
			return Off, nil
		case "1":
			return On, nil
		}
		return Unknown, fmt.Errorf("%s %q: neither 0 nor 1", name, b)
	case !errors.Is(err, fs.ErrNotExist):
		return Unknown, fmt.Errorf("read the switch of delay accounting: %w", err)
	}

	// A file beside the switch: that there is no switch means something only where it could be seen.
	b, err = os.ReadFile(filepath.Join(procRoot, "sys/kernel/osrelease"))
	if err != nil {
		return Unknown, fmt.Errorf("read the kernel's version: %w", err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(b), "%d.%d", &major, &minor); err != nil {
		return Unknown, fmt.Errorf("kernel's version %q: %w", b, err)
	}
	if major > 5 || major == 5 && minor >= 14 {
		return Missing, nil
	}
	return accountingBefore514(procRoot, countsOwn), nil
}

func accountingBefore514(procRoot string, countsOwn func() (bool, error)) State {
	built, known := builtIn(filepath.Join(procRoot, "config.gz"))
	if known && !built {
		return Missing
	}
	cmdline, err := os.ReadFile(filepath.Join(procRoot, "cmdline"))
	if err == nil && slices.Contains(strings.Fields(string(cmdline)), "nodelayacct") {
		return Off
	}
	if err == nil && known {
		return On
	}
	switch counts, err := countsOwn(); {
	case err != nil:
		return Unknown
	case counts:
		return On
	default:
		return Off // or Missing, which is the same to whoever cannot build a kernel
	}
}

// builtIn looks for CONFIG_TASK_DELAY_ACCT in a compressed kernel configuration.
func builtIn(name string) (built, known bool) {
	f, err := os.Open(name)
	if err != nil {
		return false, false
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return false, false
	}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		if lines.Text() == "CONFIG_TASK_DELAY_ACCT=y" {
			return true, true
		}
	}
	return false, lines.Err() == nil
}

// countsOwnThread asks taskstats whether the kernel tells how long the calling thread waited for its CPU. Before Linux 5.14
// it does so only while accounting is on.
func countsOwnThread() (bool, error) {
	r, err := OpenReader()
	if err != nil {
		return false, err
	}
	defer r.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, err := r.Thread(unix.Gettid())
	return self.Delays.CPU.OK, err
}

// Enable switches delay accounting on, for the tasks that begin from then on: a task that runs already has no room to
// count in. It changes the host for everybody and until it is switched off or the host starts anew.
//
// An error is fs.ErrNotExist where the kernel has no switch (see Accounting), fs.ErrPermission or EROFS where this
// process may not use it.
func Enable(procRoot string) error {
	name := filepath.Join(procRoot, switchFile)
	f, err := os.OpenFile(name, os.O_WRONLY, 0) // never made: only the kernel has it
	if err == nil {
		_, err = f.WriteString("1\n")
		err = errors.Join(err, f.Close())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("switch delay accounting on: %w (needs root with CAP_SYS_ADMIN; or set kernel.task_delayacct=1 on the host)", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("switch delay accounting on: %w (/proc/sys is mounted read-only here: set kernel.task_delayacct=1 on the host)", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("switch delay accounting on: %w (Linux 5.14 or later built with CONFIG_TASK_DELAY_ACCT has this switch)", err)
	default:
		return fmt.Errorf("switch delay accounting on: %w", err)
	}
}
