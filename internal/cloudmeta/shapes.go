// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// The shapes of values. They keep out what a captive portal says, and whatever is no label.
var (
	shapePlace = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)           // region, zone, life cycle
	shapeType  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)  // m5.large, Standard_D2s_v3
	shapeID    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,254}$`) // example.com:project, ocid1.tenancy.oc1..aaaa
	shapeUUID  = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	shapeDigit = regexp.MustCompile(`^[0-9]{1,20}$`)
	shapeToken = regexp.MustCompile(`^[A-Za-z0-9+/=._~-]+$`)
)

// checkToken says whether a text can be the token of a session, which goes into a header.
func checkToken(s string) error {
	if len(s) > 8192 || !shapeToken.MatchString(s) {
		return fmt.Errorf("token of %d bytes: %w", len(s), errMalformed)
	}
	return nil
}

// shapes checks the values of an answer and collects what is wrong with them. A bad value becomes the empty one.
type shapes struct{ errs []error }

func (c *shapes) err() error { return errors.Join(c.errs...) }

func (c *shapes) bad(name, s string) {
	c.errs = append(c.errs, fmt.Errorf("%s %.80q: %w", name, s, errMalformed))
}

// text checks a value that may be empty.
func (c *shapes) text(name, s string, shape *regexp.Regexp) string {
	if s != "" && !shape.MatchString(s) {
		c.bad(name, s)
		return ""
	}
	return s
}

// zone checks a zone, which begins with its region at every provider for which it is called.
func (c *shapes) zone(name, s, region string) string {
	if s = c.text(name, s, shapePlace); !strings.HasPrefix(s, region) && s != "" {
		c.bad(name, s)
		return ""
	}
	return s
}

// ipv4 checks an address that may be empty.
func (c *shapes) ipv4(name, s string) netip.Addr {
	addr := c.addr(name, s)
	if addr.IsValid() && !addr.Is4() {
		c.bad(name, s)
		return netip.Addr{}
	}
	return addr
}

// ipv6 adds an address that may be empty to the instance, unless it has one of the kind.
func (c *shapes) ipv6(i *Instance, name, s string) {
	addr := c.addr(name, s)
	switch {
	case !addr.IsValid() || addr.IsLinkLocalUnicast():
	case !addr.Is6():
		c.bad(name, s)
	case addr.IsPrivate():
		if !i.LocalIPv6.IsValid() {
			i.LocalIPv6 = addr
		}
	case !i.PublicIPv6.IsValid():
		i.PublicIPv6 = addr
	}
}

func (c *shapes) addr(name, s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" || addr.Is4In6() || addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
		c.bad(name, s)
		return netip.Addr{}
	}
	return addr
}

// regionOf is a zone without its last part: us-central1-b is in us-central1. A zone of one part is its own region.
func regionOf(zone string) string {
	if i := strings.LastIndexByte(zone, '-'); i > 0 {
		return zone[:i]
	}
	return zone
}

func decodeJSON(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	return nil
}
