// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

var (
	alibabaEndpoints = []endpoint{{"http://100.100.100.200", netip.MustParseAddrPort("100.100.100.200:80")}}
	alibabaInstance  = regexp.MustCompile(`^i-[0-9a-z]{6,40}$`)
	alibabaMAC       = regexp.MustCompile(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)
)

// askAlibaba reads single values, with a token where the service knows tokens. Whether the instance is a spot one is not told
// before it is taken away. See "Instance metadata" of the ECS documentation.
func askAlibaba(a *asker) Instance {
	const metadata = "/latest/meta-data/"
	a.at(alibabaEndpoints)
	if err := a.getToken("X-aliyun-ecs-metadata-token"); err != nil {
		a.fail(err)
		return Instance{}
	}
	b, err := a.must(metadata + "instance-id")
	if err != nil {
		return Instance{}
	}
	id := strings.TrimSpace(string(b))
	if !alibabaInstance.MatchString(id) {
		a.fail(fmt.Errorf("instance-id %.40q: %w", id, errMalformed))
		return Instance{}
	}
	i := Instance{Provider: Alibaba, InstanceID: id}
	i.AccountID = a.text(metadata+"owner-account-id", shapeDigit)
	i.Region = a.text(metadata+"region-id", shapePlace)
	i.AvailabilityZone = a.text(metadata+"zone-id", shapePlace)
	i.InstanceType = a.text(metadata+"instance/instance-type", shapeType)
	i.LocalIPv4 = a.ipv4(metadata + "private-ipv4")
	i.PublicIPv4 = a.ipv4(metadata + "eipv4")
	if mac := a.text(metadata+"mac", alibabaMAC); mac != "" {
		if b, err := a.get(metadata + "network/interfaces/macs/" + mac + "/ipv6s"); err == nil {
			a.fail(parseAlibabaIPv6s(b, &i))
		}
	}
	return i
}

// parseAlibabaIPv6s reads a list as "[2001:db8::1,2001:db8::2]", with quotes or without.
func parseAlibabaIPv6s(b []byte, i *Instance) error {
	var c shapes
	for addr := range strings.SplitSeq(strings.Trim(strings.TrimSpace(string(b)), "[]"), ",") {
		c.ipv6(i, "ipv6s", strings.Trim(addr, "\" \t\r\n"))
	}
	return c.err()
}
