// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The names and numbers of include/uapi/linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	nfnlSubsysCtnetlink = 1
	ipctnlMsgCtGet      = 1

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaStatusMask = 26

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ipsDstNAT = 1 << 5
)

const sizeofNfgenmsg = 4

// Translations gives each TCP connection of the namespace's connection tracking whose destination was translated to fn,
// in no order. Connections that begin or end meanwhile may be there or not, and now and then one is there twice. It needs
// CAP_NET_ADMIN in the user namespace that owns the namespace.
//
// The table is read piece by piece and never held. When ctx ends, its error is returned. A kernel that cannot tell is an
// error that matches errors.ErrUnsupported; the kernel loads nf_conntrack_netlink for the question where that is a module.
func (n *Namespace) Translations(ctx context.Context, fn func(Translation)) error {
	c, err := n.dial(ctx, unix.NETLINK_NETFILTER, maxDump)
	if err != nil {
		return explainConntrack(err)
	}
	defer c.close()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		err := c.request(nfnlSubsysCtnetlink<<8|ipctnlMsgCtGet, unix.NLM_F_DUMP, dumpRequest(family), func(body []byte) error {
			if t, ok := parseTranslation(body); ok {
				fn(t)
			}
			return nil
		})
		if err != nil {
			return explainConntrack(err)
		}
	}
	return nil
}

// dumpRequest asks for what has been translated alone. A kernel that
// does not know CTA_STATUS_MASK yet, as 5.10, gives everything.
func dumpRequest(family byte) []byte {
	b := []byte{family, 0, 0, 0} // struct nfgenmsg
	status := binary.BigEndian.AppendUint32(nil, ipsDstNAT)
	b = appendAttr(b, ctaStatus, status)
	return appendAttr(b, ctaStatusMask, status)
}

// explainConntrack says what the kernel means by an error.
func explainConntrack(err error) error {
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), // no nfnetlink
		errors.Is(err, unix.EAFNOSUPPORT), // no netlink
		errors.Is(err, unix.EINVAL):       // no ctnetlink: see nfnetlink_rcv_msg of net/netfilter/nfnetlink.c
		return fmt.Errorf("connection tracking: %w (%w)", errors.ErrUnsupported, err)
	}
	return fmt.Errorf("connection tracking: %w", err)
}

// parseTranslation reads one entry of the dump. It returns false for what is not TCP, was not translated or makes no sense.
func parseTranslation(body []byte) (Translation, bool) {
	if len(body) < sizeofNfgenmsg {
		return Translation{}, false
	}
	var orig, reply tuple
	var status uint32
	for typ, value, rest, ok := nextAttr(body[sizeofNfgenmsg:]); ok; typ, value, rest, ok = nextAttr(rest) {
		switch typ {
		case ctaTupleOrig:
			orig = parseTuple(value)
		case ctaTupleReply:
			reply = parseTuple(value)
		case ctaStatus:
			if len(value) == 4 {
				status = binary.BigEndian.Uint32(value)
			}
		}
	}
	t := Translation{Source: orig.source(), Destination: orig.destination(), Actual: reply.source()}
	isTCP := orig.proto == unix.IPPROTO_TCP && reply.proto == unix.IPPROTO_TCP
	return t, isTCP && status&ipsDstNAT != 0 && t.Source.IsValid() && t.Destination.IsValid() && t.Actual.IsValid()
}

// tuple is one direction of a connection.
type tuple struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
	proto            byte
}

func (t tuple) source() netip.AddrPort      { return netip.AddrPortFrom(t.src, t.srcPort) }
func (t tuple) destination() netip.AddrPort { return netip.AddrPortFrom(t.dst, t.dstPort) }

func parseTuple(b []byte) tuple {
	var t tuple
	for typ, value, rest, ok := nextAttr(b); ok; typ, value, rest, ok = nextAttr(rest) {
		switch typ {
		case ctaTupleIP:
			t.parseIP(value)
		case ctaTupleProto:
			t.parseProto(value)
		}
	}
	return t
}

func (t *tuple) parseIP(b []byte) {
	for typ, value, rest, ok := nextAttr(b); ok; typ, value, rest, ok = nextAttr(rest) {
		addr, _ := netip.AddrFromSlice(value) // invalid when it is not 4 or 16 bytes long
		switch typ {
		case ctaIPv4Src, ctaIPv6Src:
			t.src = addr.Unmap()
		case ctaIPv4Dst, ctaIPv6Dst:
			t.dst = addr.Unmap()
		}
	}
}

func (t *tuple) parseProto(b []byte) {
	for typ, value, rest, ok := nextAttr(b); ok; typ, value, rest, ok = nextAttr(rest) {
		switch {
		case typ == ctaProtoNum && len(value) == 1:
			t.proto = value[0]
		case typ == ctaProtoSrcPort && len(value) == 2:
			t.srcPort = binary.BigEndian.Uint16(value)
		case typ == ctaProtoDstPort && len(value) == 2:
			t.dstPort = binary.BigEndian.Uint16(value)
		}
	}
}
