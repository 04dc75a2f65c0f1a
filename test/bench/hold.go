// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// heldTruth is how many connections a process has, and why no more.
type heldTruth struct {
	Open  int
	Error string
}

// accept takes every connection to a port of any address, and keeps it.
func accept(args []string, in io.Reader, out io.Writer) error {
	port, err := strconv.ParseUint(strings.Join(args, ""), 10, 16)
	if err != nil {
		return fmt.Errorf("accept: port: %w", err)
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Port: int(port)}); err != nil {
		return err
	}
	if err := unix.Listen(l, 4096); err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(heldTruth{}); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		_ = unix.Close(l)
	}()
	for {
		if _, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil && err != unix.EINTR && err != unix.ECONNABORTED { //nolint:errorlint // bare
			return err
		}
	}
}

// startPeer starts a bench that says once that it is ready.
func startPeer(ctx context.Context, args []string) (*child, error) {
	c, err := startBench(ctx, args...)
	if err != nil {
		return nil, err
	}
	if err := c.ask("", &heldTruth{}); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// hold opens connections and keeps them. It reads lines
//
//	open ADDR DESTINATIONS N   N more, to ADDR and the addresses that follow it in turn
//	pass ADDR DESTINATIONS N   the same, but each is closed at once
//	close                      all of them, with a reset
func hold(in io.Reader, out io.Writer) error {
	var fds []int
	for sc := bufio.NewScanner(in); sc.Scan(); {
		var verb, addr string
		var destinations, n int
		_, _ = fmt.Sscan(sc.Text(), &verb, &addr, &destinations, &n)
		truth := heldTruth{}
		switch verb {
		case "open", "pass":
			first, err := netip.ParseAddrPort(addr)
			if err != nil {
				return err
			}
			for i := range n {
				fd, err := openOne(nth(first, i%destinations))
				if err != nil {
					truth.Error = err.Error()
					break
				}
				if verb == "pass" {
					_ = unix.Close(fd)
				} else {
					fds = append(fds, fd)
				}
			}
		case "close":
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			fds = nil
		default:
			return fmt.Errorf("hold: %q", sc.Text())
		}
		truth.Open = len(fds)
		if err := json.NewEncoder(out).Encode(truth); err != nil {
			return err
		}
	}
	return nil
}

// nth is the address i after an IPv4 address, with the same port.
func nth(a netip.AddrPort, i int) netip.AddrPort {
	b := a.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(i))
	return netip.AddrPortFrom(netip.AddrFrom4(b), a.Port())
}

func openOne(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	// Nothing stays behind when it closes.
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("connect to %v: %w", to, err)
	}
	return fd, nil
}

// openHeld makes a holder open n more connections.
func openHeld(holder *child, first string, destinations, n int) error {
	var truth heldTruth
	if err := holder.ask(fmt.Sprintf("open %s %d %d", first, destinations, n), &truth); err != nil {
		return err
	}
	if truth.Error != "" {
		return fmt.Errorf("%d connections open: %s", truth.Open, truth.Error)
	}
	return nil
}
