// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"testing"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// Since Docker 28 dockerd listens itself and gives the socket to the proxy that it starts.
func TestPublishedPortsThatDockerdHolds(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	server, docker := h.cgroup("docker/"+hexA, 0), h.cgroup("system.slice/docker.service", 0)
	h.process(1, hostNS, "192.0.2.1")
	h.process(201, hostNS, "192.0.2.1")
	h.procFile(201, "cmdline", "/usr/bin/dockerd\x00-H\x00fd://\x00")
	h.procFile(201, "task/201/children", "")
	h.procFile(201, "task/205/children", "300 301 ")
	h.procFile(300, "cmdline", proxyLine(8081, "172.17.0.2:80"))
	h.procFile(301, "cmdline", "containerd\x00")
	host := h.netns(hostNS)
	h.kernel.listen(
		bpf.Listener{CgroupV2: server, NetNS: h.netns("own"), Addr: addrPort("172.17.0.2:80"), Open: 1},
		bpf.Listener{CgroupV2: docker, NetNS: host, Addr: addrPort("0.0.0.0:8081"), TGID: 201, Open: 1},
		bpf.Listener{CgroupV2: docker, NetNS: host, Addr: addrPort("192.0.2.1:2375"), TGID: 201, Open: 1},
	)
	got := h.snapshot()
	wantOpen(t, got["/docker/"+hexA], "172.17.0.2:80", "127.0.0.1:8081dockerd", "192.0.2.1:8081dockerd")
	wantOpen(t, got["/system.slice/docker.service"], "192.0.2.1:2375")
}

// What a process calls itself is its own choice.
func TestContainersAreNoProxies(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	server, liar := h.cgroup("docker/"+hexA, 0), h.cgroup("docker/"+hexB, 0)
	h.process(200, "liar", "10.0.0.9")
	h.procFile(200, "cmdline", proxyLine(4444, "172.17.0.2:80"))
	h.kernel.listen(
		bpf.Listener{CgroupV2: server, NetNS: h.netns("own"), Addr: addrPort("172.17.0.2:80"), Open: 1},
		bpf.Listener{CgroupV2: liar, NetNS: h.netns("liar"), Addr: addrPort("10.0.0.9:4444"), TGID: 200, Open: 1},
	)
	got := h.snapshot()
	wantOpen(t, got["/docker/"+hexA], "172.17.0.2:80")
	wantOpen(t, got["/docker/"+hexB], "10.0.0.9:4444")
}
