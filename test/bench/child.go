// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is another bench that answers each line with one line.
type child struct {
	word string // what it does
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// startBench starts a child. It ends with ctx, or with this process; stop must be called.
func startBench(ctx context.Context, args ...string) (*child, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Stderr = os.Stderr
	bound(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{word: args[0], cmd: cmd, in: in, out: bufio.NewReader(out)}
	if c.word == "enter" {
		c.word = args[3]
	}
	return c, nil
}

// bound sees to it that the child does not outlive this process, and that Ctrl-C comes to this process alone.
func bound(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

func (c *child) say(line string) error {
	_, err := io.WriteString(c.in, line+"\n")
	return err
}

func (c *child) hear() (string, error) {
	line, err := c.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.word, err)
	}
	return strings.TrimSpace(line), nil
}

// ask says a line, none if it is empty, and decodes the JSON of the answer.
func (c *child) ask(line string, answer any) error {
	if line != "" {
		if err := c.say(line); err != nil {
			return err
		}
	}
	said, err := c.hear()
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(said), answer); err != nil {
		return fmt.Errorf("%q: %w", said, err)
	}
	return nil
}

// stop kills the child: its sockets and, with its last process, its network namespace go with it.
func (c *child) stop() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// cpuOf reads the CPU time of all threads of a process that ever were, to the nanosecond.
func cpuOf(pid int) (time.Duration, error) {
	const schedClock = 2 // see CPUCLOCK_SCHED in include/linux/posix-timers.h of Linux
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// sleep waits unless ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// eventually calls check every so often until it returns nil, and gives its last error when that takes too long.
func eventually(ctx context.Context, limit, every time.Duration, check func() error) error {
	for end := time.Now().Add(limit); ; {
		err := check()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
		if stopped := sleep(ctx, every); stopped != nil {
			return stopped
		}
	}
}

func isBusy(err error) bool { return errors.Is(err, unix.EBUSY) }
