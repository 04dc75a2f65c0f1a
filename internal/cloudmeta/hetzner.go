// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"fmt"
	"net/netip"
	"strings"
)

const hetznerMetadata = "/hetzner/v1/metadata"

// askHetzner asks for everything, and for the private networks where the first answer has no private address. The type of the
// server is not told. See "Server metadata" of the Hetzner Cloud documentation.
func askHetzner(a *asker) Instance {
	a.at(linkLocal)
	b, err := a.must(hetznerMetadata)
	if err != nil {
		return Instance{}
	}
	i, err := parseHetzner(b)
	a.fail(err)
	if i.InstanceID == "" || i.LocalIPv4.IsValid() {
		return i
	}
	if b, err := a.get(hetznerMetadata + "/private-networks"); err == nil {
		i.LocalIPv4, err = parseHetznerNetworks(b)
		a.fail(err)
	}
	return i
}

// parseHetzner reads the document line by line. It is YAML as a program writes it: what is wanted stands on a line of its own. A
// YAML parser takes gigabytes for 64 KiB of somebody else's making (one key 12,000 times).
func parseHetzner(b []byte) (Instance, error) {
	var i Instance
	var c shapes
	section := ""
	for line := range strings.Lines(string(b)) {
		top := line[0] != ' ' && line[0] != '-'
		key, value, ok := yamlLine(line)
		if !ok {
			continue
		}
		if top {
			section = key
		}
		switch {
		case !top && section == "network-config" && key == "address": // 2001:db8::1/64; of IPv4 there are no addresses here
			if prefix, err := netip.ParsePrefix(value); err == nil && prefix.Addr().Is6() {
				c.ipv6(&i, key, prefix.Addr().String())
			}
		case !top:
		case key == "instance-id":
			i.InstanceID = c.text(key, value, shapeDigit)
		case key == "region":
			i.Region = c.text(key, value, shapePlace)
		case key == "availability-zone":
			i.AvailabilityZone = c.text(key, value, shapePlace)
		case key == "public-ipv4":
			i.PublicIPv4 = c.ipv4(key, value)
		case key == "local-ipv4":
			i.LocalIPv4 = c.ipv4(key, value)
		}
	}
	if i.InstanceID == "" {
		return Instance{}, fmt.Errorf("no instance-id in %d bytes: %w", len(b), errMalformed)
	}
	i.Provider = Hetzner
	return i, c.err()
}

// parseHetznerNetworks returns the address in the first private network, of a list as "- ip: 10.0.0.2". No network is "[]".
func parseHetznerNetworks(b []byte) (netip.Addr, error) {
	var c shapes
	for line := range strings.Lines(string(b)) {
		if key, value, ok := yamlLine(line); ok && key == "ip" {
			addr := c.ipv4("private networks", value)
			return addr, c.err()
		}
	}
	return netip.Addr{}, nil
}

// yamlLine takes a line as `key: value` or `- key: 'value'` apart.
func yamlLine(line string) (key, value string, ok bool) {
	line = strings.TrimSpace(line)
	line = strings.TrimSpace(strings.TrimPrefix(line, "- "))
	key, value, ok = strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	if n := len(value); n >= 2 && value[0] == value[n-1] && (value[0] == '\'' || value[0] == '"') {
		value = value[1 : n-1]
	}
	return key, value, ok
}
