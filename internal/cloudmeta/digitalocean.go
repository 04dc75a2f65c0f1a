// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const digitalOceanMetadata = "/metadata/v1"

// askDigitalOcean asks one question. Account and size of the droplet are not told, and a region has no zones. See "Droplet
// Metadata API".
func askDigitalOcean(a *asker) Instance {
	a.at(linkLocal)
	b, err := a.do("GET", digitalOceanMetadata+".json", "")
	if errors.Is(err, errTooLarge) { // the user's data, up to 64 KiB, are part of it
		if i := askDigitalOceanSingly(a); i.InstanceID != "" {
			return i
		}
	}
	if err != nil {
		a.fail(err)
		return Instance{}
	}
	i, err := parseDigitalOcean(b)
	a.fail(err)
	return i
}

func askDigitalOceanSingly(a *asker) Instance {
	i := Instance{Provider: DigitalOcean, InstanceID: a.text(digitalOceanMetadata+"/id", shapeDigit)}
	if i.InstanceID == "" {
		return Instance{}
	}
	i.Region = a.text(digitalOceanMetadata+"/region", shapePlace)
	i.AvailabilityZone = i.Region
	const interfaces = digitalOceanMetadata + "/interfaces/"
	i.PublicIPv4 = a.ipv4(interfaces + "public/0/ipv4/address")
	i.LocalIPv4 = a.ipv4(interfaces + "private/0/ipv4/address")
	if b, err := a.get(interfaces + "public/0/ipv6/address"); err == nil {
		var c shapes
		c.ipv6(&i, "ipv6", strings.TrimSpace(string(b)))
		a.fail(c.err())
	}
	return i
}

func parseDigitalOcean(b []byte) (Instance, error) {
	type nic struct {
		IPv4 struct {
			Address string `json:"ip_address"`
		} `json:"ipv4"`
		IPv6 struct {
			Address string `json:"ip_address"`
		} `json:"ipv6"`
	}
	var doc struct {
		DropletID  json.Number `json:"droplet_id"` // was in quotes once
		Region     string      `json:"region"`
		Interfaces struct {
			Public  []nic `json:"public"`
			Private []nic `json:"private"`
		} `json:"interfaces"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return Instance{}, err
	}
	if !shapeDigit.MatchString(doc.DropletID.String()) {
		return Instance{}, fmt.Errorf("droplet_id %.40q: %w", doc.DropletID, errMalformed)
	}
	var c shapes
	i := Instance{Provider: DigitalOcean, InstanceID: doc.DropletID.String(), Region: c.text("region", doc.Region, shapePlace)}
	i.AvailabilityZone = i.Region
	if public := doc.Interfaces.Public; len(public) > 0 {
		i.PublicIPv4 = c.ipv4("public ipv4", public[0].IPv4.Address)
		c.ipv6(&i, "public ipv6", public[0].IPv6.Address)
	}
	if private := doc.Interfaces.Private; len(private) > 0 {
		i.LocalIPv4 = c.ipv4("private ipv4", private[0].IPv4.Address)
	}
	return i, c.err()
}
