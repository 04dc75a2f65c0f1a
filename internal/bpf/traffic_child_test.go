// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trafficTimeout bounds each blocking call of the child.
const trafficTimeout = 20 * time.Second

// runTraffic is the child's side of the traffic tests: one verb on raw sockets, which are named by their descriptors, so
// that nothing but the kernel remembers anything between two verbs. It returns a value and an errno.
func runTraffic(verb, rest string) (value, errno int) {
	n, err := trafficVerb(verb, strings.Fields(rest))
	var e unix.Errno
	switch {
	case err == nil:
		return n, 0
	case errors.As(err, &e):
		return n, int(e)
	default:
		return n, int(unix.EINVAL)
	}
}

func trafficVerb(verb string, args []string) (int, error) {
	var num [4]int // the arguments that are numbers
	for i, a := range args {
		num[i], _ = strconv.Atoi(a)
	}
	fd, n := num[0], num[1]
	switch verb {
	case "open": // ADDR HOW: a socket, connected
		return openTraffic(netip.MustParseAddrPort(args[0]), args[1])
	case "socket": // ADDR: one that fits ADDR
		return trafficSocket(netip.MustParseAddrPort(args[0]), 0)
	case "dial": // FD ADDR HOW
		return fd, dialTraffic(fd, netip.MustParseAddrPort(args[1]), args[2])
	case "undial": // FD: connect(AF_UNSPEC)
		return fd, rawConnect(fd, make([]byte, unix.SizeofSockaddrInet4))
	case "bind": // FD PORT: returns the port
		return bindShared(fd, uint16(n))
	case "lossy": // FD: it does not get some of the packets sent to it
		return fd, dropSome(fd)
	case "retransmits": // FD
		return retransmits(fd)
	case "fastopen": // FD ADDR BYTES
		return sendFastOpen(fd, netip.MustParseAddrPort(args[1]), num[2])
	case "fastopened": // FD: whether the SYN had data that the peer took
		return synHadData(fd)
	case "send": // FD BYTES HOW
		return sendTraffic(fd, make([]byte, n), args[2])
	case "receive": // FD BYTES HOW
		return receiveTraffic(fd, make([]byte, n), args[2])
	case "eof": // FD: reads to the end
		return readToEOF(fd)
	case "shut": // FD: SHUT_WR
		return fd, unix.Shutdown(fd, unix.SHUT_WR)
	case "end": // FD
		return fd, unix.Close(fd)
	case "dup": // FD: returns the copy
		return unix.Dup(fd)
	case "inbox": // NAME: a unix socket to take descriptors from
		return openInbox(args[0])
	case "pass": // FD NAME
		return fd, passTo(fd, args[1])
	case "take": // INBOX: returns the descriptor
		return takeFrom(fd)
	case "bequeath": // FD FIFO: a process that inherits FD as 3 and does what is written to FIFO; returns its pid
		return bequeath(fd, args[1])
	case "hammer": // MILLISECONDS SEED ADDR,ADDR...
		return hammer(time.Duration(fd)*time.Millisecond, uint64(n), args[2])
	}
	return 0, unix.ENOSYS
}

func trafficSocket(addr netip.AddrPort, proto int) (int, error) {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return 0, err
	}
	tv := unix.NsecToTimeval(trafficTimeout.Nanoseconds())
	return fd, errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
}

func bindShared(fd int, port uint16) (int, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return sa.(*unix.SockaddrInet4).Port, nil
}

func readToEOF(fd int) (int, error) {
	buf := make([]byte, 64<<10)
	for total := 0; ; {
		n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
		if err != nil || n == 0 {
			return total, err
		}
		total += n
	}
}

// retry repeats a call that a signal interrupted; Go's scheduler sends itself some.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// whole repeats a call that may move less than it was given.
func whole(buf []byte, call func([]byte) (int, error)) (int, error) {
	done := 0
	for done < len(buf) {
		n, err := retry(func() (int, error) { return call(buf[done:]) })
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, unix.EPIPE
		}
		done += n
	}
	return done, nil
}
