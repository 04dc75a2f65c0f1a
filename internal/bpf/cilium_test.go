// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// cilium is the maps of one, pinned in a BPF file system of the test's own.
type cilium struct {
	t       *testing.T
	root    string
	maps    map[string]*ebpf.Map
	backend uint32 // the last number given
}

// ciliumSpec is a map as Cilium makes it.
type ciliumSpec struct {
	name       string
	kind       ebpf.MapType
	key, value uint32
	flags      uint32
}

var ciliumSpecs = []ciliumSpec{
	{"cilium_lb4_reverse_sk", ebpf.LRUHash, 16, 8, 0},
	{"cilium_lb6_reverse_sk", ebpf.LRUHash, 32, 20, 0},
	{"cilium_ct4_global", ebpf.LRUHash, 14, 56, 0},
	{"cilium_ct6_global", ebpf.LRUHash, 38, 56, unix.BPF_F_NO_COMMON_LRU},
}

// ciliumVersions are those that differ in what we read.
var ciliumVersions = map[string][]ciliumSpec{
	"1.12": append(slices.Clone(ciliumSpecs),
		ciliumSpec{"cilium_lb4_backends_v2", ebpf.Hash, 4, 8, unix.BPF_F_NO_PREALLOC},
		ciliumSpec{"cilium_lb6_backends_v2", ebpf.Hash, 4, 20, unix.BPF_F_NO_PREALLOC}),
	"1.18": append(slices.Clone(ciliumSpecs),
		ciliumSpec{"cilium_lb4_backends_v3", ebpf.Hash, 4, 12, unix.BPF_F_NO_PREALLOC},
		ciliumSpec{"cilium_lb6_backends_v3", ebpf.Hash, 4, 24, unix.BPF_F_NO_PREALLOC}),
}

func makeCilium(t *testing.T, specs ...ciliumSpec) *cilium {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a BPF file system")
	}
	c := &cilium{t: t, root: t.TempDir(), maps: map[string]*ebpf.Map{}}
	if err := unix.Mount("bpf", c.root, "bpf", 0, ""); err != nil {
		t.Skipf("cannot mount a BPF file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(c.root, 0); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(c.root, "tc/globals")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: s.kind, KeySize: s.key, ValueSize: s.value, MaxEntries: 4096, Flags: s.flags})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		if err := m.Pin(filepath.Join(dir, s.name)); err != nil {
			t.Fatal(err)
		}
		c.maps[s.name] = m
	}
	return c
}

// put writes the parts of a key and of a value, what is missing at their ends is zero.
func (c *cilium) put(name string, key, value [][]byte) {
	c.t.Helper()
	m := c.maps[name]
	whole := func(parts [][]byte, size uint32) []byte {
		b := slices.Concat(parts...)
		return append(b, make([]byte, int(size)-len(b))...)
	}
	if err := m.Update(whole(key, m.KeySize()), whole(value, m.ValueSize()), ebpf.UpdateAny); err != nil {
		c.t.Fatal(err)
	}
}

func wirePort(a netip.AddrPort) []byte { return binary.BigEndian.AppendUint16(nil, a.Port()) }

// balanceAtConnect does what Cilium does when the socket calls connect() to a service, but for changing the address.
func (c *cilium) balanceAtConnect(cookie uint64, service, backend netip.AddrPort) {
	c.t.Helper()
	name := "cilium_lb4_reverse_sk"
	if service.Addr().Is6() {
		name = "cilium_lb6_reverse_sk"
	}
	c.put(name,
		[][]byte{binary.NativeEndian.AppendUint64(nil, cookie), backend.Addr().AsSlice(), wirePort(backend)},
		[][]byte{service.Addr().AsSlice(), wirePort(service), {7, 7}})
}

// balancePackets does what Cilium does when it sees the SYN of a connection to a service, but for changing the address.
func (c *cilium) balancePackets(source, service, backend netip.AddrPort) {
	c.t.Helper()
	flows, backends := "cilium_ct4_global", "cilium_lb4_backends_v3"
	if service.Addr().Is6() {
		flows, backends = "cilium_ct6_global", "cilium_lb6_backends_v3"
	}
	if c.maps[backends] == nil {
		backends = backends[:len(backends)-1] + "2"
	}
	c.backend += 1 << 16
	id := binary.NativeEndian.AppendUint32(nil, c.backend)
	c.put(flows,
		[][]byte{service.Addr().AsSlice(), source.Addr().AsSlice(), wirePort(source), wirePort(service), {6, 4}},
		[][]byte{make([]byte, 8), id})
	c.put(backends, [][]byte{id}, [][]byte{backend.Addr().AsSlice(), wirePort(backend), {6}})
}

// socketOf gives the cookie and the address of a socket of the child, which it binds to the host of addr if it has none.
func socketOf(t *testing.T, ch *child, fd int, addr netip.Addr) (cookie uint64, bound netip.AddrPort) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(ch.cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err = unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		t.Fatal(err)
	}
	for {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		port := 0
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			port = sa.Port
		case *unix.SockaddrInet6:
			port = sa.Port
		}
		if port != 0 {
			return cookie, netip.AddrPortFrom(addr.Unmap(), uint16(port))
		}
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(addr, 0))); err != nil {
			t.Fatal(err)
		}
	}
}

// edgeNames are what is asked of an edge here.
type edgeNames struct {
	Destination, Actual netip.AddrPort
	Connects, Failed    uint64
	Active              int64
}

// ciliumCase is a connection behind a service.
type ciliumCase struct {
	name    string
	listen  string // nothing for an address that refuses
	mapped  bool   // the socket is an IPv6 one, the address is not
	service string // Cilium balances at connect(): the socket is given the listener for this
	backend string // Cilium balances packets: they go here
}

var ciliumCases = []ciliumCase{
	{name: "at connect", listen: "127.0.0.1:0", service: addrService},
	{name: "at connect, IPv6", listen: "[::1]:0", service: addrService6},
	{name: "at connect, mapped", listen: "127.0.0.1:0", mapped: true, service: addrService},
	{name: "at connect, refused", service: addrService},
	{name: "packets", listen: "127.0.0.1:0", backend: addrBackendA},
	{name: "packets, IPv6", listen: "[::1]:0", backend: addrBackend6},
	{name: "packets, mapped", listen: "127.0.0.1:0", mapped: true, backend: addrBackendA},
	{name: "packets, refused", backend: addrBackendA},
	{name: "no service", listen: "127.0.0.1:0"},
	{name: "no service, IPv6", listen: "[::1]:0"},
}

// ciliumClient is a process with a socket for a case.
type ciliumClient struct {
	*ciliumCase
	t          *testing.T
	cgroup     cgroup
	ch         *child
	fd         int
	addr, dial netip.AddrPort // where it is to connect to, and the same as an address of the socket
}

func (tt *ciliumCase) start(t *testing.T, h host) *ciliumClient {
	t.Helper()
	cl := &ciliumClient{ciliumCase: tt, t: t}
	if tt.listen != "" {
		cl.addr = serveEcho(t, tt.listen)
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cl.addr = netip.MustParseAddrPort(l.Addr().String())
		_ = l.Close()
	}
	cl.dial = cl.addr
	if tt.mapped {
		cl.dial = netip.AddrPortFrom(netip.AddrFrom16(cl.addr.Addr().As16()), cl.addr.Port())
	}
	cl.cgroup = h.makeCgroup(t, fmt.Sprintf("cilium-%d", cl.addr.Port()))
	cl.ch = startChild(t, cl.cgroup)
	cl.fd = cl.ch.call("socket %s", cl.dial)
	return cl
}

// fill makes the entries of the connection, and some of others. It returns how the edge is to be named.
func (cl *ciliumClient) fill(c *cilium) edgeNames {
	cl.t.Helper()
	cookie, source := socketOf(cl.t, cl.ch, cl.fd, cl.dial.Addr())
	want := edgeNames{Destination: cl.addr, Actual: cl.addr}
	other := netip.AddrPortFrom(cl.addr.Addr(), 9)
	if cl.service != "" {
		want.Destination = netip.MustParseAddrPort(cl.service)
		c.balanceAtConnect(cookie, want.Destination, cl.addr)
	}
	if cl.backend != "" {
		want.Actual = netip.MustParseAddrPort(cl.backend)
		c.balancePackets(source, cl.addr, want.Actual)
	}
	next := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }
	c.balanceAtConnect(cookie+1, other, cl.addr)
	c.balanceAtConnect(cookie, other, next(cl.addr))
	c.balancePackets(next(source), cl.addr, other)
	c.balancePackets(source, next(cl.addr), other)
	return want
}

func (cl *ciliumClient) check(tr *Tracer, want edgeNames) {
	cl.t.Helper()
	var got []edgeNames
	for _, e := range edgesOf(cl.t, tr, cl.cgroup) {
		got = append(got, edgeNames{e.Destination, e.Actual, e.Connects, e.FailedTotal(), e.Active})
	}
	if !slices.Equal(got, []edgeNames{want}) {
		cl.t.Errorf("%s: got %+v, want %+v", cl.name, got, want)
	}
}

func TestServicesOfCilium(t *testing.T) {
	h := findHost(t)
	for version, specs := range ciliumVersions {
		c := makeCilium(t, specs...)
		tr := openTracer(t, Options{LegacyController: h.controller(), Network: true, BPFFSRoot: c.root})
		for i := range ciliumCases {
			tt := &ciliumCases[i]
			t.Run(version+" "+tt.name, func(t *testing.T) {
				cl := tt.start(t, h)
				want := cl.fill(c)
				_, errno := cl.ch.ask("dial %d %s plain", cl.fd, cl.dial)()
				switch {
				case errno == unix.ECONNREFUSED && cl.listen == "":
					want.Failed, want.Actual = 1, want.Destination // as for all that have failed
				case errno == 0 && cl.listen != "":
					want.Connects, want.Active = 1, 1
				default:
					t.Fatalf("connect: %v", errno)
				}
				cl.check(tr, want)
				cl.ch.call("end %d", cl.fd)
				want.Active = 0
				cl.check(tr, want)
			})
		}
	}
}

func TestOlderConnectionsToServicesOfCilium(t *testing.T) {
	h := findHost(t)
	c := makeCilium(t, ciliumVersions["1.18"]...)
	clients := map[*ciliumClient]edgeNames{}
	for i := range ciliumCases {
		if ciliumCases[i].listen == "" {
			continue
		}
		cl := ciliumCases[i].start(t, h)
		cl.ch.call("dial %d %s plain", cl.fd, cl.dial)
		clients[cl] = cl.fill(c)
	}
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true, BPFFSRoot: c.root})
	if err := tr.Adopt(); err != nil {
		t.Fatal(err)
	}
	for cl, want := range clients {
		want.Active = 1
		cl.check(tr, want)
	}
}

// featureOf opens a Tracer and tells of its feature network_cilium.
func featureOf(t *testing.T, root string) (found bool, err error) {
	t.Helper()
	findHost(t)
	tr := Open(Options{Network: true, BPFFSRoot: root})
	defer tr.Close()
	for _, f := range tr.Features() {
		switch f.Name {
		case FeatureNetworkCilium:
			found, err = true, f.Err
		case FeatureNetwork, FeatureNetworkLive, FeatureNetworkAdopt:
			if f.Err != nil {
				t.Errorf("%s: %v", f.Name, f.Err)
			}
		}
	}
	return found, err
}

func TestCiliumOfUnknownLayoutIsLeftAlone(t *testing.T) {
	c := makeCilium(t, ciliumSpecs[0], ciliumSpec{"cilium_ct4_global", ebpf.LRUHash, 18, 64, 0})
	found, err := featureOf(t, c.root)
	if !found || !errors.Is(err, errCiliumLayout) || !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("found %t, %v", found, err)
	}
	const want = "this version of Cilium is not known: its map cilium_ct4_global is a LRUHash with keys of 18 and values of 64 bytes"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestCiliumMapThatIsNoMap(t *testing.T) {
	findHost(t)
	root := t.TempDir()
	dir := filepath.Join(root, "tc/globals")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "cilium_ct4_global"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if found, err := featureOf(t, root); !found || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("found %t, %v", found, err)
	}
}

func TestCiliumWithSomeMapsReadOnly(t *testing.T) {
	c := makeCilium(t, ciliumSpecs[0])
	if err := unix.Mount("", c.root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if found, err := featureOf(t, c.root); !found || err != nil {
		t.Errorf("found %t, %v", found, err)
	}
}

func TestNoCiliumCostsNothing(t *testing.T) {
	findHost(t)
	with := makeCilium(t, ciliumVersions["1.18"]...)
	if found, err := featureOf(t, t.TempDir()); found || err != nil {
		t.Errorf("without maps: found %t, %v", found, err)
	}
	size := func(root string) int {
		tr := openTracer(t, Options{Network: true, BPFFSRoot: root})
		info, err := tr.tcp.objs.OnTcpState.Info()
		if err != nil {
			t.Fatal(err)
		}
		insns, err := info.Instructions()
		if err != nil {
			t.Fatal(err)
		}
		return len(insns)
	}
	on, off := size(with.root), size(t.TempDir())
	t.Logf("on_tcp_state: %d instructions with Cilium, %d without", on, off)
	if on-off < 300 {
		t.Errorf("%d instructions with Cilium, %d without: its part was not left out", on, off)
	}
}
