// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// netlinkSocket is a socket to the kernel for one network namespace. It belongs to the namespace that it was made in, so
// that it stays open and the namespace need not be entered again.
type netlinkSocket struct {
	ns       *namespace
	protocol int
	conn     *netlink.Conn // nil before the first question and after one that failed
}

// dump asks for all that a request matches.
func (s *netlinkSocket) dump(ctx context.Context, typ netlink.HeaderType, request []byte) ([]netlink.Message, error) {
	if s.conn == nil {
		var conn *netlink.Conn
		err := s.ns.inside(func() (err error) {
			conn, err = netlink.Dial(s.protocol, nil)
			return err
		})
		if err != nil {
			return nil, err
		}
		s.conn = conn
	}
	conn := s.conn
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, join(err, s.close())
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if !stop() {
		err = ctx.Err() // the socket is of no more use: its deadline may be set at any moment
	}
	if err != nil {
		return nil, errors.Join(err, s.close()) // more answers may come
	}
	return answers, nil
}

func (s *netlinkSocket) close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}

// addresses are those of the namespace by the index of their interface, without those that are link-local or not yet known
// to be unique.
func addresses(ctx context.Context, route *netlinkSocket) (map[uint32][]netip.Addr, error) {
	answers, err := route.dump(ctx, unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg)) // of all families
	if err != nil {
		return nil, err
	}
	found := map[uint32][]netip.Addr{}
	for i := range answers {
		index, addr, err := parseAddress(answers[i].Data)
		if err != nil {
			return nil, err
		}
		if addr.IsValid() {
			found[index] = append(found[index], addr)
		}
	}
	return found, nil
}

// parseAddress reads an answer to RTM_GETADDR: struct ifaddrmsg and attributes, see rtnetlink(7). The address is the zero
// value when it is not to be given.
func parseAddress(b []byte) (index uint32, addr netip.Addr, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return 0, addr, fmt.Errorf("address of %d bytes: truncated", len(b))
	}
	flags := uint32(b[2])
	index = binary.NativeEndian.Uint32(b[4:])
	attrs, err := netlink.NewAttributeDecoder(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return 0, addr, fmt.Errorf("attributes of an address: %w", err)
	}
	var local, address netip.Addr
	for attrs.Next() {
		switch attrs.Type() {
		case unix.IFA_LOCAL: // where it differs from the next, that is the far end of a point-to-point link
			local, _ = netip.AddrFromSlice(attrs.Bytes())
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(attrs.Bytes())
		case unix.IFA_FLAGS: // all of them, since 3.14
			flags = attrs.Uint32()
		}
	}
	if err := attrs.Err(); err != nil {
		return 0, addr, fmt.Errorf("attributes of an address: %w", err)
	}
	addr = local
	if !addr.IsValid() {
		addr = address
	}
	if flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 || addr.IsLinkLocalUnicast() {
		return index, netip.Addr{}, nil
	}
	return index, addr.Unmap(), nil
}

// listeners adds the ports of the listening TCP sockets of the namespace to ports. No connection is looked at.
func listeners(ctx context.Context, diag *netlinkSocket, ports map[uint16]struct{}) error {
	const byFamily = 20 // SOCK_DIAG_BY_FAMILY, include/uapi/linux/sock_diag.h
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, 56) // struct inet_diag_req_v2, include/uapi/linux/inet_diag.h
		request[0], request[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(request[4:], 1<<tcpListen)
		answers, err := diag.dump(ctx, byFamily, request)
		if err != nil {
			return err
		}
		for i := range answers {
			port, err := parseListener(answers[i].Data)
			if err != nil {
				return err
			}
			ports[port] = struct{}{}
		}
	}
	return nil
}

const tcpListen = 10 // TCP_LISTEN, include/net/tcp_states.h

// parseListener reads the beginning of a struct inet_diag_msg.
func parseListener(b []byte) (port uint16, err error) {
	if len(b) < 6 {
		return 0, fmt.Errorf("socket of %d bytes: truncated", len(b))
	}
	if b[1] != tcpListen {
		return 0, fmt.Errorf("socket in state %d where a listening one was asked for", b[1])
	}
	return binary.BigEndian.Uint16(b[4:]), nil
}
