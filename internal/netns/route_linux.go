// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// routeTimeout is far more than the kernel needs: its answer is there before the question has been sent.
	routeTimeout = 2 * time.Second

	// maxRouteAnswer is enough for all attributes of a route, as iproute2 has it.
	maxRouteAnswer = 16 << 10
)

// Route asks the kernel whether a connection from the namespace to dst finds a route, as connect() does. Nothing is sent. It
// returns nil when there is one, otherwise an error that matches what connect() would return: unix.ENETUNREACH without
// any route, unix.EHOSTUNREACH for a route of type unreachable, unix.EACCES for prohibit, unix.EINVAL for blackhole.
//
// Rules (ip rule) that look at the user, the mark or the address of a socket are answered for a plain socket of ours. The
// zone of an address is not looked at.
func (n *Namespace) Route(dst netip.Addr) error {
	dst = dst.Unmap().WithZone("")
	switch {
	case !dst.IsValid():
		return fmt.Errorf("route: %w", unix.EINVAL)
	case dst.IsMulticast():
		return fmt.Errorf("route to %s: %w", dst, unix.ENETUNREACH) // nobody connects there
	case dst.IsUnspecified():
		return nil // connect() takes it for this host itself
	}
	ctx, cancel := context.WithTimeout(context.Background(), routeTimeout)
	defer cancel()
	c, err := n.dial(ctx, unix.NETLINK_ROUTE, maxRouteAnswer)
	if err != nil {
		return err
	}
	defer c.close()
	err = c.request(unix.RTM_GETROUTE, 0, routeRequest(dst), func(body []byte) error {
		if len(body) < unix.SizeofRtMsg {
			return fmt.Errorf("route of %d bytes: %w", len(body), errTruncated)
		}
		if body[7] == unix.RTN_BROADCAST { // rtm_type
			return unix.ENETUNREACH // so says tcp_v4_connect
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("route to %s: %w", dst, err)
	}
	return nil
}

// routeRequest is a struct rtmsg and the attribute RTA_DST.
func routeRequest(dst netip.Addr) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0] = unix.AF_INET
	if dst.Is6() {
		b[0] = unix.AF_INET6
	}
	b[1] = byte(dst.BitLen())
	return appendAttr(b, unix.RTA_DST, dst.AsSlice())
}
