// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cloudmeta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// namespace is our own: there are no others here.
type namespace struct{}

func openNamespace(path string) (*namespace, error) {
	return &namespace{}, fmt.Errorf("%s: %w", path, errors.ErrUnsupported)
}

func (*namespace) close()         {}
func (*namespace) refusal() error { return nil }

func (*namespace) dial(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address.String())
}
