// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
)

var (
	oracleEndpoints = []endpoint{
		linkLocal[0],
		{"http://[fd00:c1::a9fe:a9fe]", netip.MustParseAddrPort("[fd00:c1::a9fe:a9fe]:80")}, // of instances without IPv4
	}
	oracleInstance = regexp.MustCompile(`^ocid1\.instance\.[A-Za-z0-9._-]{1,240}$`)
	oracleTenancy  = regexp.MustCompile(`^ocid1\.tenancy\.[A-Za-z0-9._-]{1,240}$`)
	oracleDomain   = regexp.MustCompile(`^[A-Za-z0-9]{1,16}:[A-Za-z0-9-]{1,63}-AD-([0-9]{1,2})$`)
)

// askOracle asks for the instance, and for its interfaces, whose public IPv4 addresses are not told. See "Instance Metadata
// Service v2".
func askOracle(a *asker) Instance {
	a.at(oracleEndpoints, "Authorization", "Bearer Oracle")
	b, err := a.must("/opc/v2/instance/")
	if err != nil {
		return Instance{}
	}
	i, err := parseOracle(b)
	a.fail(err)
	if i.InstanceID == "" {
		return i
	}
	if b, err := a.get("/opc/v2/vnics/"); err == nil {
		a.fail(parseOracleInterfaces(b, &i))
	}
	return i
}

func parseOracle(b []byte) (Instance, error) {
	var doc struct {
		ID                 string          `json:"id"`
		TenantID           string          `json:"tenantId"`
		Shape              string          `json:"shape"`
		Region             string          `json:"canonicalRegionName"`
		AvailabilityDomain string          `json:"availabilityDomain"`
		ADName             string          `json:"ociAdName"`
		Preemptible        json.RawMessage `json:"preemptibleInstanceConfig"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return Instance{}, err
	}
	if !oracleInstance.MatchString(doc.ID) {
		return Instance{}, fmt.Errorf("id %.40q: %w", doc.ID, errMalformed)
	}
	var c shapes
	i := Instance{
		Provider:           Oracle,
		InstanceID:         doc.ID,
		AccountID:          c.text("tenantId", doc.TenantID, oracleTenancy),
		InstanceType:       c.text("shape", doc.Shape, shapeType),
		LifeCycle:          OnDemand,
		Region:             c.text("canonicalRegionName", doc.Region, shapePlace),
		AvailabilityZoneID: c.text("ociAdName", doc.ADName, shapePlace),
	}
	if len(doc.Preemptible) > 0 && string(doc.Preemptible) != "null" {
		i.LifeCycle = Preemptible
	}
	// "qIZq:PHX-AD-1": the number depends on the tenancy, whose prefix is no place. "us-phoenix-1-ad-1" is what users of
	// coroot-node-agent have.
	domain := c.text("availabilityDomain", doc.AvailabilityDomain, oracleDomain)
	if m := oracleDomain.FindStringSubmatch(domain); m != nil && i.Region != "" {
		i.AvailabilityZone = i.Region + "-ad-" + m[1]
	}
	return i, c.err()
}

// parseOracleInterfaces adds the addresses of the first interface to the instance.
func parseOracleInterfaces(b []byte, i *Instance) error {
	var doc []struct {
		PrivateIP string            `json:"privateIp"`
		IPv6      []json.RawMessage `json:"ipv6Addresses"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return fmt.Errorf("vnics: %w", err)
	}
	if len(doc) == 0 {
		return nil
	}
	var c shapes
	i.LocalIPv4 = c.ipv4("privateIp", doc[0].PrivateIP)
	for _, raw := range doc[0].IPv6 {
		var plain string
		var object struct{ IPAddress string }
		if json.Unmarshal(raw, &plain) != nil && json.Unmarshal(raw, &object) != nil {
			c.bad("ipv6Addresses", string(raw))
		}
		c.ipv6(i, "ipv6Addresses", plain+object.IPAddress)
	}
	return c.err()
}
