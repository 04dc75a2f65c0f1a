// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// ownNamespace is that of the thread which opens it.
const ownNamespace = "/proc/thread-self/ns/net"

// Namespace keeps hold of one network namespace, which lives on until Close even when its processes are gone. Its methods
// may be called by any number of goroutines.
type Namespace struct {
	file *os.File
	key  nsKey
}

// nsKey tells namespaces apart.
type nsKey struct{ dev, ino uint64 }

// Open takes hold of the network namespace of a process. Of a process of another user, or with more capabilities than
// ours, it needs CAP_SYS_PTRACE.
//
// The error matches fs.ErrNotExist when the process is gone and fs.ErrPermission when the kernel refuses.
func Open(procRoot string, pid int) (*Namespace, error) {
	dir := filepath.Join(procRoot, strconv.Itoa(pid))
	f, err := os.Open(filepath.Join(dir, "ns", "net"))
	if err != nil {
		// Of a process that has ended since its folder was found the kernel says EACCES.
		if _, gone := os.Stat(dir); gone != nil {
			err = gone
		}
		return nil, gone(err)
	}
	key, err := keyOf(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Namespace{file: f, key: key}, nil
}

// ID is the number of the namespace, the same as net->ns.inum in the kernel and the inode of /proc/<pid>/ns/net.
func (n *Namespace) ID() uint32 { return uint32(n.key.ino) } // the kernel keeps 32 bits

// Close lets the namespace go.
func (n *Namespace) Close() error { return n.file.Close() }

func keyOf(f *os.File) (nsKey, error) {
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return os.NewSyscallError("fstat", unix.Fstat(fd, &st)) }); err != nil {
		return nsKey{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nsKey{dev: st.Dev, ino: st.Ino}, nil
}

// control runs fn with a descriptor that cannot be closed meanwhile.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fnErr error
	if err := raw.Control(func(fd uintptr) { fnErr = fn(int(fd)) }); err != nil {
		return err
	}
	return fnErr
}

// socket makes a socket of the namespace, which does not block.
func (n *Namespace) socket(domain, typ, proto int) (*os.File, error) {
	fd := -1
	err := n.inside(func() (err error) {
		fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// inside runs fn, which must be short and must not start goroutines, on a thread that is inside the namespace. Where that
// is our own, the thread stays where it is and no privilege is needed.
func (n *Namespace) inside(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- n.onThread(fn) }()
	return <-done
}

// onThread is inside for a goroutine that ends afterwards.
func (n *Namespace) onThread(fn func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		return n.inside(fn) // as long as this goroutine keeps the main thread, the next one cannot get it
	}
	back, err := n.enter()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = fn()
	if backErr := back(); backErr != nil {
		return errors.Join(err, backErr) // still locked: the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// enter moves the thread into the namespace and returns what moves it back. After an error the thread has not moved.
func (n *Namespace) enter() (back func() error, err error) {
	own, err := os.Open(ownNamespace)
	if err != nil {
		return nil, err
	}
	key, err := keyOf(own)
	if err != nil || key == n.key {
		own.Close()
		return func() error { return nil }, err
	}
	if err := setns(n.file); err != nil {
		own.Close()
		return nil, fmt.Errorf("enter network namespace %d: %w", n.key.ino, err)
	}
	return func() error {
		defer own.Close()
		if err := setns(own); err != nil {
			return fmt.Errorf("leave network namespace %d: %w", n.key.ino, err)
		}
		return nil
	}, nil
}

func setns(f *os.File) error {
	return control(f, func(fd int) error { return os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET)) })
}
