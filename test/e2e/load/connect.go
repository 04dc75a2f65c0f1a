// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
)

// connectTruth is what connect prints.
type connectTruth struct {
	Destination string `json:"destination"`
	Connected   int64  `json:"connected"`
	Refused     int64  `json:"refused"`
}

// dialler makes connections with bare system calls: package net may call connect(2) more than once for one Dial.
type dialler struct {
	destination netip.AddrPort
	domain      int
	remote      syscall.Sockaddr
	sources     []syscall.Sockaddr // bound to in turn, none leaves it to the kernel
	payload     []byte             // sent over each connection
	hold        bool               // do not close
}

func newDialler(addr string, rotate, mapped bool) (*dialler, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	d := &dialler{destination: ap, domain: syscall.AF_INET6}
	if ap.Addr().Is4() && !mapped {
		d.domain = syscall.AF_INET
	}
	d.remote = d.sockaddr(ap)
	if rotate {
		for i := range byte(8) {
			d.sources = append(d.sources, d.sockaddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, 1 + i}), 0)))
		}
	}
	return d, nil
}

func (d *dialler) sockaddr(ap netip.AddrPort) syscall.Sockaddr {
	if d.domain == syscall.AF_INET {
		return &syscall.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return &syscall.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())} // As16 gives the mapped form of IPv4
}

// connectAll calls connect(2) exactly n times. An outcome other than established or refused is an error: then nobody
// could say what the collector should have counted.
func (d *dialler) connectAll(n, workers int) (connectTruth, error) {
	var next, connected, refused atomic.Int64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				err := d.connect(int(i))
				switch {
				case err == nil:
					connected.Add(1)
				case errors.Is(err, syscall.ECONNREFUSED):
					refused.Add(1)
				default:
					errs[w] = fmt.Errorf("connect %d to %v: %w", i, d.destination, err)
					return
				}
			}
		})
	}
	wg.Wait()
	truth := connectTruth{Destination: d.destination.String(), Connected: connected.Load(), Refused: refused.Load()}
	return truth, errors.Join(errs...)
}

// From linux/in.h: choose the source port at connect time, when the whole tuple is known.
const ipBindAddressNoPort = 24

func (d *dialler) connect(i int) error {
	fd, err := syscall.Socket(d.domain, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if !d.hold {
		defer func() { _ = syscall.Close(fd) }()
	}
	// Closing resets the connection: no TIME_WAIT sockets pile up on this side.
	if err := syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}); err != nil {
		return err
	}
	if len(d.sources) > 0 {
		if err := syscall.SetsockoptInt(fd, syscall.SOL_IP, ipBindAddressNoPort, 1); err != nil {
			return err
		}
		if err := syscall.Bind(fd, d.sources[i%len(d.sources)]); err != nil {
			return err
		}
	}
	if err := syscall.Connect(fd, d.remote); err != nil || len(d.payload) == 0 {
		return err
	}
	return sendAll(fd, d.payload)
}

func sendAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
