// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command init is the only process of a virtual machine in which test binaries run: it makes a pure cgroup v2 host of a
// bare kernel, runs each binary of /tests and powers off. The last line says whether all passed.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is for a virtual machine of its own, see run.sh")
		os.Exit(2)
	}
	if err := setUp(); err != nil {
		fmt.Println("init:", err)
	}
	verdict := "passed"
	if err := runTests(); err != nil {
		fmt.Println("init:", err)
		verdict = "failed"
	}
	fmt.Println("verdict:", verdict)
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		fmt.Println("init:", err)
	}
}

func setUp() error {
	for _, m := range []struct{ source, target, fstype string }{
		{"proc", "/proc", "proc"},
		{"sysfs", "/sys", "sysfs"},
		{"devtmpfs", "/dev", "devtmpfs"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2"},
		{"tmpfs", "/tmp", "tmpfs"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu +memory +io +pids"), 0); err != nil {
		return err
	}
	return errors.Join(bringUp("lo"), loadModules())
}

// loadModules loads those of /modules in the order of their names.
func loadModules() error {
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range modules {
		f, err := os.Open(m)
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
			_ = f.Close()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("load %s: %w", m, err))
		}
	}
	return errors.Join(errs...)
}

func bringUp(link string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(link)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

func runTests() error {
	tests, err := filepath.Glob("/tests/*")
	if err != nil || len(tests) == 0 {
		return fmt.Errorf("no tests (%w)", err)
	}
	var failed []string
	for _, test := range tests {
		fmt.Println("==", filepath.Base(test))
		args := []string{"-test.v", "-test.timeout=10m"}
		if filepath.Base(test) == "inventory" {
			args = append(args, "-test.run=^TestReal") // the others have a kernel of their own
		}
		if run := os.Getenv("TESTS"); run != "" { // from the kernel's command line
			args = append(args, "-test.run="+run)
		}
		cmd := exec.Command(test, args...)
		cmd.Dir = "/tmp"
		cmd.Env = []string{"PATH=/", "HOME=/tmp", "TMPDIR=/tmp", "EBPFCONTAINER_REQUIRE_ROOT_TESTS=1"}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		if err := cmd.Run(); err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", filepath.Base(test), err))
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%v", failed)
	}
	return nil
}
