// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// shellScript obeys one order a line: WORD HOW-MANY LIFE. A shell, for its processes have one thread each, tell what they
// waited themselves, and cost a fork and an exit but no exec. Who never sleeps has lived for what it ran and what it waited.
const shellScript = `
for dir in "$@"; do echo 0 >"$dir/cgroup.procs" || exit; done
trap 'spin=' USR1
echo ready
while read -r word n life; do
	case $word in
	spin)
		spin=yes
		echo spins
		while [ "$spin" ]; do :; done
		;;
	starve)
		while [ "$n" -gt 0 ]; do
			(
				while read -r ran waited more </proc/thread-self/schedstat && [ $((ran + waited)) -lt "$life" ]; do :; done
				echo "$waited"
			)
			n=$((n - 1))
		done
		;;
	tell)
		while [ "$n" -gt 0 ]; do
			(
				read -r ran waited more </proc/thread-self/schedstat
				echo "$waited"
			)
			n=$((n - 1))
		done
		;;
	fork)
		while [ "$n" -gt 0 ]; do
			(:)
			n=$((n - 1))
		done
		;;
	esac
	echo done
done
`

const doneWord = "done" // after each order

// anyCPU leaves it to the kernel where a shell and its processes run.
const anyCPU = -1

// startShell starts a shell that waits for orders in some cgroups. stop must be called.
func startShell(ctx context.Context, cgroups []string, cpu int) (*child, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", shellScript, "sh"}, cgroups...)...)
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
	sh := &child{word: "shell", cmd: cmd, in: in, out: bufio.NewReader(out)}
	if _, err := sh.hear(); err != nil {
		sh.stop()
		return nil, err
	}
	if cpu != anyCPU {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(cmd.Process.Pid, &set); err != nil {
			sh.stop()
			return nil, fmt.Errorf("CPU %d: %w", cpu, err)
		}
	}
	return sh, nil
}

// lastCPU is the one of this process's that most likely has the least else to do.
func lastCPU() (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, err
	}
	for cpu := len(set)*64 - 1; cpu > 0; cpu-- {
		if set.IsSet(cpu) {
			return cpu, nil
		}
	}
	return 0, nil
}

// delayOf reads how long the main thread of a process has waited for a CPU.
func delayOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return 0, err
	}
	return parseSchedstat(string(b))
}

// parseSchedstat takes the second of three numbers. See Documentation/scheduler/sched-stats.rst of Linux.
func parseSchedstat(s string) (time.Duration, error) {
	fields := strings.Fields(s)
	if len(fields) < 2 {
		return 0, fmt.Errorf("schedstat %q: no delay", s)
	}
	ns, err := strconv.ParseInt(fields[1], 10, 64)
	return time.Duration(ns), err
}

// setQuota limits the CPU time of a container, until lift.
func (c *container) setQuota(quota, period time.Duration) (lift func(), err error) {
	dirs := cgroupDirs(c.path())
	if len(dirs) == 1 && !exists(filepath.Join(dirs[0], "cpu.max")) {
		// The parent was made for this bench, else it would have been told already.
		err := os.WriteFile(filepath.Join(filepath.Dir(dirs[0]), "cgroup.subtree_control"), []byte("+cpu"), 0)
		if err != nil {
			return nil, fmt.Errorf("no cpu controller: %w", err)
		}
	}
	q, p := quota.Microseconds(), period.Microseconds()
	for _, dir := range dirs {
		v1, v2 := filepath.Join(dir, "cpu.cfs_quota_us"), filepath.Join(dir, "cpu.max")
		switch {
		case exists(v1):
			err := os.WriteFile(filepath.Join(dir, "cpu.cfs_period_us"), fmt.Append(nil, p), 0)
			if err == nil {
				err = os.WriteFile(v1, fmt.Append(nil, q), 0)
			}
			return func() { _ = os.WriteFile(v1, []byte("-1"), 0) }, err
		case exists(v2):
			return func() { _ = os.WriteFile(v2, []byte("max"), 0) }, os.WriteFile(v2, fmt.Appendf(nil, "%d %d", q, p), 0)
		}
	}
	return nil, fmt.Errorf("no file for a quota in %v", dirs)
}

// throttled is how many seconds a container was kept from running by its quota, summed over CPUs.
func (c *container) throttled() float64 {
	for _, dir := range cgroupDirs(c.path()) {
		stat := cpuStat(dir)
		if us, ok := stat["throttled_usec"]; ok {
			return us / 1e6
		}
		if ns, ok := stat["throttled_time"]; ok {
			return ns / 1e9
		}
	}
	return 0
}

// cpuTime is the CPU time of all processes that ever were in a container.
func (c *container) cpuTime() (time.Duration, error) {
	for _, dir := range cgroupDirs(c.path()) {
		if b, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage")); err == nil {
			ns, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			return time.Duration(ns), err
		}
		if us, ok := cpuStat(dir)["usage_usec"]; ok {
			return time.Duration(us * 1e3), nil
		}
	}
	return 0, fmt.Errorf("no CPU time of %s", c.path())
}

// cpuStat is empty where there is none.
func cpuStat(dir string) map[string]float64 {
	all := map[string]float64{}
	b, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(b)) {
		var name string
		var value float64
		if n, _ := fmt.Sscan(line, &name, &value); n == 2 {
			all[name] = value
		}
	}
	return all
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
