// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// attr makes an attribute of parts, padded.
func attr(typ uint16, parts ...[]byte) []byte {
	value := join(parts...)
	b := appendAttr(nil, typ, value)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func tupleAttr(typ uint16, proto byte, src, dst netip.AddrPort) []byte {
	srcType, dstType := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if src.Addr().Is6() {
		srcType, dstType = ctaIPv6Src, ctaIPv6Dst
	}
	return attr(typ|unix.NLA_F_NESTED,
		attr(ctaTupleIP|unix.NLA_F_NESTED, attr(srcType, src.Addr().AsSlice()), attr(dstType, dst.Addr().AsSlice())),
		attr(ctaTupleProto|unix.NLA_F_NESTED,
			attr(ctaProtoNum, []byte{proto}), attr(ctaProtoSrcPort, be16(src.Port())), attr(ctaProtoDstPort, be16(dst.Port()))))
}

var nfgen = []byte{unix.AF_INET, 0, 0, 0}

func TestParseTranslation(t *testing.T) {
	ap := netip.MustParseAddrPort
	entry := func(proto byte, status uint32, src, dst, actual string) []byte {
		return join(nfgen, tupleAttr(ctaTupleOrig, proto, ap(src), ap(dst)), tupleAttr(ctaTupleReply, proto, ap(actual), ap(src)),
			attr(ctaStatus, be32(status)))
	}
	const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	for _, tt := range []struct {
		name string
		in   []byte
		want Translation
		ok   bool
	}{
		{name: "empty"},
		{name: "nothing but a header", in: nfgen},
		{
			name: "IPv4", in: entry(tcp, 0x1ae, "10.0.0.1:4000", "10.96.0.1:443", "10.0.0.2:6443"), ok: true,
			want: Translation{ap("10.0.0.1:4000"), ap("10.96.0.1:443"), ap("10.0.0.2:6443")},
		},
		{
			name: "IPv6", in: entry(tcp, ipsDstNAT, "[fd00::1]:4000", "[fd00::a]:443", "[fd00::2]:6443"), ok: true,
			want: Translation{ap("[fd00::1]:4000"), ap("[fd00::a]:443"), ap("[fd00::2]:6443")},
		},
		{
			name: "mapped", in: entry(tcp, ipsDstNAT, "[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:2", "[::ffff:10.0.0.3]:3"), ok: true,
			want: Translation{ap("10.0.0.1:1"), ap("10.0.0.2:2"), ap("10.0.0.3:3")},
		},
		{name: "UDP", in: entry(udp, ipsDstNAT, "10.0.0.1:4000", "10.96.0.1:53", "10.0.0.2:53")},
		{name: "source translated alone", in: entry(tcp, 1<<4, "10.0.0.1:4000", "10.96.0.1:443", "10.96.0.1:443")},
		{
			name: "without a reply",
			in:   join(nfgen, tupleAttr(ctaTupleOrig, tcp, ap("10.0.0.1:1"), ap("10.0.0.2:2")), attr(ctaStatus, be32(ipsDstNAT))),
		},
		{
			name: "odd address",
			in:   join(nfgen, attr(ctaTupleOrig, attr(ctaTupleIP, attr(ctaIPv4Src, []byte{1, 2, 3}))), attr(ctaStatus, be32(ipsDstNAT))),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseTranslation(tt.in)
			if ok != tt.ok {
				t.Errorf("ok: %v", ok)
			}
			if ok && got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzParseTranslation(f *testing.F) {
	src, dst := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	f.Add(join(nfgen, tupleAttr(ctaTupleOrig, 6, src, dst), tupleAttr(ctaTupleReply, 6, dst, src), attr(ctaStatus, be32(ipsDstNAT))))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := parseTranslation(b)
		if ok && !(got.Source.IsValid() && got.Destination.IsValid() && got.Actual.IsValid()) {
			t.Errorf("%v", got)
		}
	})
}

func TestExplainConntrack(t *testing.T) {
	for _, tt := range []struct{ in, want error }{
		{in: unix.EPROTONOSUPPORT, want: errors.ErrUnsupported},
		{in: unix.EINVAL, want: errors.ErrUnsupported},
		{in: unix.EPERM, want: fs.ErrPermission},
		{in: context.Canceled, want: context.Canceled},
	} {
		if got := explainConntrack(tt.in); !errors.Is(got, tt.want) || !errors.Is(got, tt.in) {
			t.Errorf("%v: got %v", tt.in, got)
		}
	}
}

// all returns the translations of the namespace, sorted.
func (l *lab) all() []Translation {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var got []Translation
	if err := l.ns.Translations(ctx, func(t Translation) { got = append(got, t) }); err != nil {
		l.t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b Translation) int { return a.Destination.Compare(b.Destination) })
	return got
}

// listen makes a server of the namespace.
func (l *lab) listen(addr string) {
	l.t.Helper()
	var server net.Listener
	err := l.ns.inside(func() (err error) {
		server, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { server.Close() })
}

// dial makes a client of the namespace and returns its own address.
func (l *lab) dial(addr string) netip.AddrPort {
	l.t.Helper()
	var client net.Conn
	err := l.ns.inside(func() (err error) {
		client, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { client.Close() })
	return client.LocalAddr().(*net.TCPAddr).AddrPort()
}

func TestTranslations(t *testing.T) {
	needTool(t, "iptables")
	needTool(t, "ip6tables")
	a, b := joined(t)
	a.run(`iptables -t nat -A OUTPUT -p tcp -d 10.96.0.1 --dport 80 -j DNAT --to-destination 10.7.0.2:8080
		iptables -t nat -A OUTPUT -p udp -d 10.96.0.1 --dport 53 -j DNAT --to-destination 10.7.0.2:5353
		ip6tables -t nat -A OUTPUT -p tcp -d fd96::1 --dport 80 -j DNAT --to-destination [fd07::2]:8080`)
	b.listen("10.7.0.2:8080")
	b.listen("[fd07::2]:8080")

	ap := netip.MustParseAddrPort
	want := []Translation{
		{a.dial("10.96.0.1:80"), ap("10.96.0.1:80"), ap("10.7.0.2:8080")},
		{a.dial("[fd96::1]:80"), ap("[fd96::1]:80"), ap("[fd07::2]:8080")},
	}
	a.dial("10.7.0.2:8080") // tracked, not translated
	if diff := cmp.Diff(want, a.all(), cmp.Comparer(func(a, b Translation) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := b.all(); len(got) != 0 {
		t.Errorf("the far end: got %v", got)
	}
}

func TestTranslationsEndWithContext(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.ns.Translations(ctx, func(Translation) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// fill makes n translated connections, numbered by their port and address, without any packet.
func (l *lab) fill(n int) {
	const ctaTimeout, ctaNATDst, minIP, natProto, portMin, portMax = 7, 13, 1, 3, 1, 2
	c, err := l.ns.dial(context.Background(), unix.NETLINK_NETFILTER, maxDump)
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.close()
	actual := netip.MustParseAddrPort("10.7.0.2:8080")
	for i := range n {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 7, 1, byte(i >> 16)}), uint16(i))
		dst := netip.MustParseAddrPort("10.96.0.1:80")
		body := join(nfgen, tupleAttr(ctaTupleOrig, unix.IPPROTO_TCP, src, dst), tupleAttr(ctaTupleReply, unix.IPPROTO_TCP, dst, src),
			attr(ctaTimeout, be32(300)),
			attr(ctaNATDst|unix.NLA_F_NESTED, attr(minIP, actual.Addr().AsSlice()),
				attr(natProto|unix.NLA_F_NESTED, attr(portMin, be16(actual.Port())), attr(portMax, be16(actual.Port())))))
		const ctNew = nfnlSubsysCtnetlink << 8
		err := c.request(ctNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, body, func([]byte) error { return nil })
		if err != nil {
			l.t.Fatalf("entry %d: %v", i, err)
		}
	}
}

func TestTranslationsOfManyDatagrams(t *testing.T) {
	l := newLab(t)
	const n = 3000
	l.fill(n)
	seen := map[netip.AddrPort]bool{}
	for _, got := range l.all() {
		seen[got.Source] = true
	}
	if len(seen) != n {
		t.Errorf("got %d connections, want %d", len(seen), n)
	}
}
