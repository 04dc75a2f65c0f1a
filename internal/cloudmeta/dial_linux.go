// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// namespace dials out of the host's network namespace, or out of our own where the host's cannot be opened or entered.
type namespace struct {
	file *os.File // nil: dial from where we are

	mu  sync.Mutex
	err error // why the namespace cannot be entered
}

// openNamespace takes hold of the network namespace behind a path. What it returns can always be used: after an error it stays in
// our own namespace. Of another user's process the path needs CAP_SYS_PTRACE, entering it CAP_SYS_ADMIN.
func openNamespace(path string) (*namespace, error) {
	host, err := os.Open(path)
	if err != nil {
		return &namespace{}, err
	}
	var theirs, ours unix.Stat_t
	if err := control(host, func(fd int) error { return unix.Fstat(fd, &theirs) }); err != nil {
		host.Close()
		return &namespace{}, fmt.Errorf("%s: %w", path, err)
	}
	if unix.Stat("/proc/thread-self/ns/net", &ours) == nil && ours.Dev == theirs.Dev && ours.Ino == theirs.Ino {
		host.Close()
		return &namespace{}, nil // we are in it, and need no privilege
	}
	return &namespace{file: host}, nil
}

func (n *namespace) close() {
	if n.file != nil {
		n.file.Close()
	}
}

// refusal is why questions come from our own namespace although the host's could be opened.
func (n *namespace) refusal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// dial connects to an address. The connection belongs to the namespace for as long as it lives.
func (n *namespace) dial(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
	if n.file == nil || n.refusal() != nil {
		return dial(ctx, address)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := n.dialInside(ctx, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// dialInside is dial for a goroutine that ends afterwards.
func (n *namespace) dialInside(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// Never the main thread: /proc/self/net would be its, and it cannot end. As long as this goroutine keeps it, the next one
		// cannot get it.
		defer runtime.UnlockOSThread()
		return n.dial(ctx, address)
	}
	if err := control(n.file, func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) }); err != nil {
		runtime.UnlockOSThread()
		n.mu.Lock()
		n.err = fmt.Errorf("enter the host's network namespace: %w", err)
		n.mu.Unlock()
		return dial(ctx, address)
	}
	// Still locked when the goroutine ends: the thread ends with it and need not find its way back.
	return dial(ctx, address)
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

func dial(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second, KeepAlive: -1} // the context ends sooner
	return d.DialContext(ctx, "tcp", address.String())
}
