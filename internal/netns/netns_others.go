// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Namespace is a network namespace, which only Linux has.
type Namespace struct{}

// Open says that there are no network namespaces here.
func Open(procRoot string, _ int) (*Namespace, error) {
	return nil, fmt.Errorf("%s: %w", procRoot, errors.ErrUnsupported)
}

// ID returns 0.
func (*Namespace) ID() uint32 { return 0 }

// Close does nothing.
func (*Namespace) Close() error { return nil }

// Translations finds nothing.
func (*Namespace) Translations(context.Context, func(Translation)) error {
	return errors.ErrUnsupported
}

// Route knows no routes.
func (*Namespace) Route(netip.Addr) error { return errors.ErrUnsupported }

// Echo asks nobody.
func (*Namespace) Echo(context.Context, []netip.Addr, time.Duration) (map[netip.Addr]time.Duration, error) {
	return nil, errors.ErrUnsupported
}
