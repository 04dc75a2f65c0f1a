// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// attempts are connects of a child with bare system calls: package net may call connect() more than once for one Dial.
type attempts struct {
	n            int
	want         unix.Errno // of those that fail
	addr, other  netip.AddrPort
	done, failed int // connected, and failed as wanted; others are reported on stderr
}

// runAttempts is the child's side: HOW N ERRNO ADDR [OTHER]. Sockets are closed at once, but where HOW says otherwise.
func runAttempts(rest string) (done, failed int) {
	args := strings.Fields(rest)
	n, _ := strconv.Atoi(args[1])
	errno, _ := strconv.Atoi(args[2])
	a := attempts{n: n, want: unix.Errno(errno), addr: netip.MustParseAddrPort(args[3])}
	if len(args) > 4 {
		a.other = netip.MustParseAddrPort(args[4])
	}
	switch how := args[0]; how {
	case "same", "left": // one socket for all calls, closed at the end or not
		fd := a.socket(a.addr, 0)
		for range a.n {
			a.note(unix.Connect(fd, sockaddr(a.addr)))
		}
		if how == "same" {
			unix.Close(fd)
		}
	case "pending", "hold": // kept: in progress, or connected
		for range a.n {
			fd := a.socket(a.addr, 0)
			_ = unix.SetNonblock(fd, how == "pending")
			a.note(unix.Connect(fd, sockaddr(a.addr)))
		}
	case "again": // one that does not wait is asked again and again
		fd := a.socket(a.addr, unix.SOCK_NONBLOCK)
		_ = unix.Connect(fd, sockaddr(a.addr))
		for range a.n {
			a.note(unix.Connect(fd, sockaddr(a.addr)))
		}
		unix.Close(fd)
	case "isconn": // one that is connected is asked again and again
		fd := a.socket(a.addr, 0)
		for range a.n + 1 {
			a.note(unix.Connect(fd, sockaddr(a.addr)))
		}
		unix.Close(fd)
	case "eyeballs":
		a.eyeballs()
	case "expire":
		a.expire()
	case "listen": // no attempt at all: an MPTCP socket that nobody accepts from
		fd, err := trafficSocket(a.addr, unix.IPPROTO_MPTCP)
		a.note(errors.Join(err, unix.Bind(fd, sockaddr(a.addr)), unix.Listen(fd, 16)))
	default:
		for i := range a.n {
			fd := a.socket(a.addr, 0)
			a.note(a.connect(fd, how, i))
			unix.Close(fd)
		}
	}
	return a.done, a.failed
}

func (a *attempts) note(err error) {
	switch {
	case err == nil:
		a.done++
	case errors.Is(err, a.want):
		a.failed++
	default:
		fmt.Fprintf(os.Stderr, "connect to %v: %v, not %v\n", a.addr, err, a.want)
	}
}

func (a *attempts) socket(addr netip.AddrPort, flags int) int {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "socket:", err)
	}
	return fd
}

// connect makes one connect and returns how it ended.
func (a *attempts) connect(fd int, how string, i int) error {
	to := sockaddr(a.addr)
	switch how {
	case "blocking":
		return unix.Connect(fd, to)
	case "poll": // asks connect() itself how it went
		return a.finish(fd, a.begin(fd, to))
	case "soerror":
		if err := a.begin(fd, to); err != nil {
			return err
		}
		return awaitConnected(fd)
	case "after": // the same socket to other, when it was refused by addr
		a.note(unix.Connect(fd, to))
		return unix.Connect(fd, sockaddr(a.other))
	case "from": // from the port and address of other, by a socket whose end is a reset
		return a.connectFrom(fd, to)
	case "syncnt": // the kernel gives up after two SYNs
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1), unix.Connect(fd, to))
	case "usertimeout":
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1500), unix.Connect(fd, to))
	case "sndtimeo", "fastopentimeo":
		tv := unix.NsecToTimeval((200 * time.Millisecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil || how == "sndtimeo" {
			return errors.Join(err, unix.Connect(fd, to))
		}
		_, err := sendFastOpen(fd, a.addr, 1)
		return err
	case "shutdown", "disconnect", "giveup": // three ways to end an attempt
		err := a.begin(fd, to)
		time.Sleep(50 * time.Millisecond)
		switch how {
		case "shutdown":
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		case "disconnect":
			_ = rawConnect(fd, make([]byte, unix.SizeofSockaddrInet4))
		}
		if err == nil {
			err = unix.EINPROGRESS
		}
		return err
	case "fastopen":
		_, err := sendFastOpen(fd, a.addr, 1)
		return err
	case "uring":
		return uringConnect(fd, rawSockaddr(a.addr), 0, 0)
	case "mapped":
		return a.elsewhere(unix.AF_INET6, unix.SOCK_STREAM)
	case "udp":
		return a.elsewhere(unix.AF_INET, unix.SOCK_DGRAM)
	case "self": // a connection of a socket to itself
		return errors.Join(unix.Bind(fd, to), unix.Connect(fd, to))
	}
	return fmt.Errorf("attempt %d: no way %q", i, how)
}

// begin begins a connect that does not wait; it is nil while that is under way.
func (a *attempts) begin(fd int, to unix.Sockaddr) error {
	_ = unix.SetNonblock(fd, true)
	if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return nil
}

// finish calls connect() again after the handshake: it says EISCONN, or what went wrong.
func (a *attempts) finish(fd int, err error) error {
	if err == nil {
		err = awaitPoll(fd, unix.POLLOUT)
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(a.addr))
	}
	if errors.Is(err, unix.EISCONN) {
		return nil
	}
	return err
}

func (a *attempts) connectFrom(fd int, to unix.Sockaddr) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Bind(fd, sockaddr(a.other)),
		unix.Connect(fd, to))
}

// elsewhere connects another kind of socket.
func (a *attempts) elsewhere(family, kind int) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if family == unix.AF_INET6 {
		return unix.Connect(fd, &unix.SockaddrInet6{Port: int(a.addr.Port()), Addr: a.addr.Addr().As16()})
	}
	return unix.Connect(fd, sockaddr(a.addr))
}

// eyeballs races addr against other, n times, and closes the loser as soon as other has won.
func (a *attempts) eyeballs() {
	for range a.n {
		loser, winner := a.socket(a.addr, 0), a.socket(a.other, 0)
		if err := a.begin(loser, sockaddr(a.addr)); err != nil {
			a.note(err)
		}
		err := a.begin(winner, sockaddr(a.other))
		if err == nil {
			err = awaitConnected(winner)
		}
		a.note(err)
		unix.Close(loser)
		unix.Close(winner)
	}
}

// expire begins n connects to addr that time out, and meanwhile makes others to other, where they are refused: timers
// then fire while the kernel is at work on those.
func (a *attempts) expire() {
	var fds []int
	for i := range a.n {
		fd := a.socket(a.addr, 0)
		err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1100+1900*i/a.n) // one timer after the other
		if err := errors.Join(err, a.begin(fd, sockaddr(a.addr))); err != nil {
			a.note(err)
		}
		fds = append(fds, fd)
	}
	for begun := time.Now(); time.Since(begun) < 4*time.Second; {
		fd := a.socket(a.other, 0)
		if err := unix.Connect(fd, sockaddr(a.other)); !errors.Is(err, unix.ECONNREFUSED) {
			a.note(err)
		}
		unix.Close(fd)
		a.done++
	}
	for _, fd := range fds {
		a.note(awaitConnected(fd))
		unix.Close(fd)
	}
}
