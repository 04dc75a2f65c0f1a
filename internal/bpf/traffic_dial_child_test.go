// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func openTraffic(addr netip.AddrPort, how string) (int, error) {
	proto := 0
	if how == "mptcp" {
		proto, how = unix.IPPROTO_MPTCP, "plain"
	}
	fd, err := trafficSocket(addr, proto)
	if err != nil {
		return 0, err
	}
	if err := dialTraffic(fd, addr, how); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func dialTraffic(fd int, addr netip.AddrPort, how string) error {
	switch how {
	case "plain":
		_, err := retry(func() (int, error) { return 0, unix.Connect(fd, sockaddr(addr)) })
		if errors.Is(err, unix.EISCONN) {
			return nil // the first call was interrupted and the handshake went on
		}
		return err
	case "poll":
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		if err := unix.Connect(fd, sockaddr(addr)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
		return errors.Join(awaitConnected(fd), unix.SetNonblock(fd, false))
	case "interrupted":
		return dialInterrupted(fd, addr)
	case "restarted":
		// With no timeout set, the kernel begins an interrupted connect() anew under SA_RESTART, which Go sets.
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{}); err != nil {
			return err
		}
		defer signalThread(time.Millisecond)()
		return unix.Connect(fd, sockaddr(addr))
	case "fastopen": // connect() only notes the address when it has a cookie; the first write sends the SYN
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
			return err
		}
		return unix.Connect(fd, sockaddr(addr))
	case "uring":
		return uringConnect(fd, rawSockaddr(addr), 0, 0)
	case "uring-worker":
		return uringConnect(fd, rawSockaddr(addr), uringSQEAsync, 0)
	case "uring-sqpoll":
		return uringConnect(fd, rawSockaddr(addr), 0, uringSetupSQPoll)
	}
	return unix.ENOSYS
}

// dialInterrupted insists that a signal ends connect() with EINTR, and then waits for the handshake.
func dialInterrupted(fd int, addr netip.AddrPort) error {
	stop := signalThread(20 * time.Millisecond)
	err := unix.Connect(fd, sockaddr(addr))
	stop()
	if !errors.Is(err, unix.EINTR) {
		return errors.Join(unix.EPROTO, err)
	}
	return awaitConnected(fd)
}

// signalThread sends the calling thread a signal again and again. Its result ends that.
func signalThread(every time.Duration) func() {
	runtime.LockOSThread()
	tid, stop, stopped := unix.Gettid(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(every); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG) // Go's runtime expects stray ones
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		runtime.UnlockOSThread()
	}
}

func awaitConnected(fd int) error {
	if err := awaitPoll(fd, unix.POLLOUT); err != nil {
		return err
	}
	soErr, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && soErr != 0 {
		return unix.Errno(soErr)
	}
	return err
}

func awaitPoll(fd int, events int16) error {
	n, err := retry(func() (int, error) {
		return unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(trafficTimeout.Milliseconds()))
	})
	if err == nil && n == 0 {
		return unix.ETIMEDOUT
	}
	return err
}

func rawSockaddr(addr netip.AddrPort) []byte {
	size, at := unix.SizeofSockaddrInet6, 8 // after family, port and flow label
	family := uint16(unix.AF_INET6)
	if addr.Addr().Is4() {
		size, at, family = unix.SizeofSockaddrInet4, 4, unix.AF_INET
	}
	sa := make([]byte, size)
	binary.NativeEndian.PutUint16(sa, family)
	binary.BigEndian.PutUint16(sa[2:], addr.Port())
	copy(sa[at:], addr.Addr().AsSlice())
	return sa
}

func rawConnect(fd int, sa []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa)))
	if errno != 0 {
		return errno
	}
	return nil
}

func sendFastOpen(fd int, addr netip.AddrPort, bytes int) (int, error) {
	buf := make([]byte, bytes)
	// After EINTR nobody knows what has gone with the SYN. Go's scheduler interrupts threads with a signal.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGURG - 1)}}, &was); err != nil {
		return 0, err
	}
	n, err := unix.SendmsgN(fd, buf, nil, sockaddr(addr), unix.MSG_FASTOPEN)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &was, nil); err != nil {
		return n, err
	}
	if err != nil {
		return n, err
	}
	m, err := whole(buf[n:], func(b []byte) (int, error) { return unix.Write(fd, b) })
	return n + m, err
}

func synHadData(fd int) (int, error) {
	const tcpiOptSynData = 32 // include/uapi/linux/tcp.h
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.Options&tcpiOptSynData == 0 {
		return 0, err
	}
	return 1, nil
}

// retransmits is what the kernel itself says.
func retransmits(fd int) (int, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, err
	}
	return int(info.Total_retrans), nil
}

// openInbox binds an abstract unix socket.
func openInbox(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrUnix{Name: name})
}

func passTo(fd int, name string) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return unix.Sendmsg(s, []byte{0}, unix.UnixRights(fd), &unix.SockaddrUnix{Name: name}, 0)
}

func takeFrom(inbox int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(inbox, make([]byte, 1), oob, 0)
	if err != nil {
		return 0, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return 0, errors.Join(unix.EBADMSG, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return 0, errors.Join(unix.EBADMSG, err)
	}
	return fds[0], nil
}

func bequeath(fd int, fifo string) (int, error) {
	in, err := unix.Open(fifo, unix.O_RDWR|unix.O_CLOEXEC, 0) // for writing as well: it never ends
	if err != nil {
		return 0, err
	}
	heirloom, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=commands")
	stdin, extra := os.NewFile(uintptr(in), fifo), os.NewFile(uintptr(heirloom), "socket")
	defer stdin.Close()
	defer extra.Close()
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = stdin, os.Stderr, []*os.File{extra}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}
