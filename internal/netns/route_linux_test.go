// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRoute(t *testing.T) {
	a, b := joined(t)
	a.run(`ip route add unreachable 10.8.1.0/24
		ip route add prohibit 10.8.2.0/24
		ip route add blackhole 10.8.3.0/24
		ip -6 route add unreachable fd08:1::/64
		ip -6 route add prohibit fd08:2::/64
		ip -6 route add blackhole fd08:3::/64`)
	for _, tt := range []struct {
		name, dst string
		from      *lab
		want      error
	}{
		{name: "neighbour", from: a, dst: "10.7.0.2"},
		{name: "default route", from: a, dst: "203.0.113.1"},
		{name: "itself", from: a, dst: "10.7.0.1"},
		{name: "loopback", from: a, dst: "127.0.0.1"},
		{name: "unspecified", from: a, dst: "0.0.0.0"},
		{name: "mapped", from: a, dst: "::ffff:10.8.1.1", want: unix.EHOSTUNREACH},
		{name: "unreachable", from: a, dst: "10.8.1.1", want: unix.EHOSTUNREACH},
		{name: "prohibit", from: a, dst: "10.8.2.1", want: unix.EACCES},
		{name: "blackhole", from: a, dst: "10.8.3.1", want: unix.EINVAL},
		{name: "broadcast", from: a, dst: "10.7.0.255", want: unix.ENETUNREACH},
		{name: "multicast", from: a, dst: "224.0.0.1", want: unix.ENETUNREACH},
		{name: "no route", from: b, dst: "203.0.113.1", want: unix.ENETUNREACH},
		{name: "neighbour, IPv6", from: a, dst: "fd07::2"},
		{name: "default route, IPv6", from: a, dst: "2001:db8::1"},
		{name: "loopback, IPv6", from: a, dst: "::1"},
		{name: "unreachable, IPv6", from: a, dst: "fd08:1::1", want: unix.EHOSTUNREACH},
		{name: "prohibit, IPv6", from: a, dst: "fd08:2::1", want: unix.EACCES},
		{name: "blackhole, IPv6", from: a, dst: "fd08:3::1", want: unix.EINVAL},
		{name: "no route, IPv6", from: b, dst: "2001:db8::1", want: unix.ENETUNREACH},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dst := netip.MustParseAddr(tt.dst)
			if err := tt.from.ns.Route(dst); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if tt.want == nil {
				return
			}
			// connect() says the same.
			if err := tt.from.connect(netip.AddrPortFrom(dst, 9)); !errors.Is(err, tt.want) {
				t.Errorf("connect: got %v, want %v", err, tt.want)
			}
		})
	}
}

// connect begins a TCP connection from the namespace and gives it up.
func (l *lab) connect(dst netip.AddrPort) error {
	domain, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: dst.Addr().As16(), Port: int(dst.Port())})
	if dst.Addr().Is4() {
		domain, addr = unix.AF_INET, &unix.SockaddrInet4{Addr: dst.Addr().As4(), Port: int(dst.Port())}
	}
	f, err := l.ns.socket(domain, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return control(f, func(fd int) error { return unix.Connect(fd, addr) })
}

func TestRouteOfNothing(t *testing.T) {
	l := newLab(t)
	if err := l.ns.Route(netip.Addr{}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkRoute(b *testing.B) {
	n, err := Open("/proc", os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	dst := netip.MustParseAddr("127.0.0.1")
	for b.Loop() {
		if err := n.Route(dst); err != nil {
			b.Fatal(err)
		}
	}
}
