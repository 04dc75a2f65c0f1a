// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// namespace is the network namespace that is read.
type namespace struct {
	proc string // folder of a process that is in it; proc/net is the namespace's
	ours bool   // it is the one of this process
	note error  // ErrNotHost with the reason when it may not be the host's

	file    *os.File // to enter it by, nil when it is ours
	fileErr error    // why there is no file
}

// findNamespace finds the host's network namespace, which is that of PID 1 in the given /proc. ownProc is where this
// process finds itself.
func findNamespace(proc, ownProc string) namespace {
	own, ownErr := netInode(filepath.Join(ownProc, "self"))
	n := namespace{proc: filepath.Join(proc, "1")}
	inode, err := netInode(n.proc)
	if err != nil {
		return namespace{
			proc: filepath.Join(ownProc, "self"),
			ours: true,
			note: fmt.Errorf("reading our own network namespace, %w: %w", ErrNotHost, err),
		}
	}
	if !hasKernelThreads(proc) {
		n.note = fmt.Errorf("reading the network namespace of %s, %w: %s shows a PID namespace without the kernel's threads",
			n.proc, ErrNotHost, proc)
	}
	if ownErr == nil && own == inode {
		n.ours = true
		return n
	}
	if n.file, err = os.Open(filepath.Join(n.proc, "ns/net")); err != nil {
		n.fileErr = withPrivilege(err, "CAP_SYS_PTRACE")
	}
	return n
}

// netInode tells network namespaces apart: each has entries of its own below /proc/<pid>/net, whose inode numbers are
// unique. Unlike /proc/<pid>/ns/net anybody may look at them.
func netInode(proc string) (uint64, error) {
	var st unix.Stat_t
	file := filepath.Join(proc, "net/dev")
	if err := unix.Stat(file, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: file, Err: err}
	}
	return st.Ino, nil
}

// hasKernelThreads reports whether proc shows the first PID namespace of the system, where PID 2 is kthreadd.
func hasKernelThreads(proc string) bool {
	const kernelThread = 0x00200000 // PF_KTHREAD, include/linux/sched.h
	host, err := procfs.NewFS(proc)
	if err != nil {
		return false
	}
	p, err := host.Proc(2)
	if err != nil {
		// Mounted with hidepid: what remains is whether our own namespace is the first, PROC_PID_INIT_INO.
		link, _ := os.Readlink(filepath.Join(proc, "self/ns/pid"))
		return link == "pid:[4026531836]"
	}
	stat, err := p.Stat()
	return err == nil && stat.Flags&kernelThread != 0
}

// inside runs fn, which must be short and must not start goroutines, on a thread that is inside the namespace. It is
// never the main thread, because /proc/self/net of the whole process is the main thread's.
func (n *namespace) inside(fn func() error) error {
	if n.ours {
		return fn()
	}
	if n.file == nil {
		return n.fileErr
	}
	done := make(chan error, 1)
	go func() { done <- n.onThread(fn) }()
	return <-done
}

// onThread is inside for a goroutine that ends afterwards.
func (n *namespace) onThread(fn func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		return n.inside(fn) // the next goroutine cannot get the main thread while this one keeps it
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return withPrivilege(fmt.Errorf("enter %s: %w", n.file.Name(), os.NewSyscallError("setns", err)), "CAP_SYS_ADMIN")
	}
	err = fn()
	if backErr := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); backErr != nil {
		return errors.Join(err, os.NewSyscallError("setns", backErr)) // still locked: the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// withPrivilege adds what is needed to err if it says that something is.
func withPrivilege(err error, capability string) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: needs %s", err, capability)
	}
	return err
}

func (n *namespace) close() error {
	if n.file == nil {
		return nil
	}
	err := n.file.Close()
	n.file, n.fileErr = nil, os.ErrClosed
	return err
}
