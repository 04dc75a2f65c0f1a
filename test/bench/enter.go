// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// newNetns asks enter for a new network namespace.
const newNetns = "new"

// The addresses of a new namespace: its loopback has all of 10.0.0.0/8. Loopback addresses proper would be talk within a
// container, which is not counted.
const (
	serverAddr = "10.77.0.1:8080"
	closedAddr = "10.77.0.1:8081"
)

// enter moves this process into cgroups and a network namespace and becomes another bench.
func enter(args []string) error {
	if len(args) < 3 {
		return errors.New("enter: no word")
	}
	for dir := range strings.SplitSeq(args[0], ":") {
		// "0" is the writer itself.
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	runtime.LockOSThread() // the thread that calls exec is the one that stays
	if err := enterNetns(args[1]); err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	return unix.Exec("/proc/self/exe", append([]string{"bench"}, args[2:]...), os.Environ())
}

func enterNetns(path string) error {
	if path != newNetns {
		ns, err := os.Open(path)
		if err != nil {
			return err
		}
		defer ns.Close()
		return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return err
	}
	alias, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	if err := alias.SetInet4Addr([]byte{10, 77, 0, 1}); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, unix.SIOCSIFADDR, alias) // the mask is that of the address's class
}
