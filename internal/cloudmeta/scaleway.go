// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"fmt"
	"net/netip"
)

var scalewayEndpoints = []endpoint{
	{"http://169.254.42.42", netip.MustParseAddrPort("169.254.42.42:80")},
	{"http://[fd00:42::42]", netip.MustParseAddrPort("[fd00:42::42]:80")}, // of instances without IPv4
}

// askScaleway asks one question. See "Metadata" of the Instances API.
func askScaleway(a *asker) Instance {
	a.at(scalewayEndpoints)
	b, err := a.must("/conf?format=json")
	if err != nil {
		return Instance{}
	}
	i, err := parseScaleway(b)
	a.fail(err)
	return i
}

func parseScaleway(b []byte) (Instance, error) {
	type address struct {
		Address string `json:"address"`
	}
	var doc struct {
		ID             string `json:"id"`
		Organization   string `json:"organization"`
		CommercialType string `json:"commercial_type"`
		Location       struct {
			ZoneID string `json:"zone_id"`
		} `json:"location"`
		PrivateIP   string    `json:"private_ip"`
		PublicIP    address   `json:"public_ip"`
		PublicIPsV4 []address `json:"public_ips_v4"`
		PublicIPsV6 []address `json:"public_ips_v6"`
		IPv6        address   `json:"ipv6"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return Instance{}, err
	}
	if !shapeUUID.MatchString(doc.ID) {
		return Instance{}, fmt.Errorf("id %.40q: %w", doc.ID, errMalformed)
	}
	var c shapes
	zone := c.text("zone_id", doc.Location.ZoneID, shapePlace)
	i := Instance{
		Provider:         Scaleway,
		InstanceID:       doc.ID,
		AccountID:        c.text("organization", doc.Organization, shapeUUID),
		InstanceType:     c.text("commercial_type", doc.CommercialType, shapeType),
		Region:           regionOf(zone), // fr-par of fr-par-1
		AvailabilityZone: zone,
		LocalIPv4:        c.ipv4("private_ip", doc.PrivateIP),
	}
	for _, ip := range append([]address{doc.PublicIP}, doc.PublicIPsV4...) {
		if !i.PublicIPv4.IsValid() {
			i.PublicIPv4 = c.ipv4("public_ip", ip.Address)
		}
	}
	for _, ip := range append(doc.PublicIPsV6, doc.IPv6) {
		c.ipv6(&i, "public_ips_v6", ip.Address)
	}
	return i, c.err()
}
