// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestOlderMPTCPListenersAreAdopted: programs in Go listen on MPTCP sockets if the kernel has them.
func TestOlderMPTCPListenersAreAdopted(t *testing.T) {
	h := findHost(t)
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP); err != nil {
		t.Skip("no MPTCP in this kernel:", err)
	} else {
		unix.Close(fd)
	}
	ns := makeNetns(t)
	c := h.makeCgroup(t, "mptcp")
	server := ns.startChild(t, c)
	if got := server.do("attempt listen 1 0 127.0.0.1:8080"); got != "1 0" {
		t.Fatalf("listen: got %q", got)
	}
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	if err := tr.Adopt(); err != nil {
		t.Fatal(err)
	}
	client := ns.startChild(t, h.root())
	if got := client.do("attempt blocking 3 0 127.0.0.1:8080"); got != "3 0" {
		t.Fatalf("connect: got %q", got)
	}
	var open int64
	var accepted uint64
	if err := tr.Read(Pass{
		Listener: func(l *Listener) {
			if l.CgroupV2 == c.v2 && l.CgroupV1 == c.v1 {
				open += l.Open
			}
		},
		Edge: func(e *Edge) {
			if e.CgroupV2 == c.v2 && e.CgroupV1 == c.v1 && e.Inbound {
				accepted += e.Connects
			}
		},
	}); err != nil {
		t.Fatal(err)
	}
	if open != 1 || accepted != 3 {
		t.Errorf("%d listeners and %d connections, want 1 and 3", open, accepted)
	}
}
