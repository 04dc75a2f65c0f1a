// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const azureInstance = "/metadata/instance?format=json&api-version="

var azureZone = regexp.MustCompile(`^[A-Za-z0-9-]{1,63}$`) // "1", "2" or "3" in a region that has zones

// askAzure asks one question. See "Azure Instance Metadata Service".
func askAzure(a *asker) Instance {
	a.at(linkLocal, "Metadata", "true")
	b, err := a.do("GET", azureInstance+"2021-05-01", "")
	if errors.Is(err, errTooLarge) {
		// The user's data, up to 64 KiB of it, are in the answer since version 2021-01-01.
		var older error
		if b, older = a.do("GET", azureInstance+"2020-09-01", ""); older == nil {
			err = nil
		}
	}
	if err != nil {
		a.fail(err)
		return Instance{}
	}
	i, err := parseAzure(b)
	a.fail(err)
	return i
}

func parseAzure(b []byte) (Instance, error) {
	type address struct {
		Private string `json:"privateIpAddress"`
		Public  string `json:"publicIpAddress"`
	}
	var doc struct {
		Compute struct {
			Location       string  `json:"location"`
			Priority       *string `json:"priority"`
			SubscriptionID string  `json:"subscriptionId"`
			VMID           string  `json:"vmId"`
			VMSize         string  `json:"vmSize"`
			Zone           string  `json:"zone"`
		} `json:"compute"`
		Network struct {
			Interface []struct {
				IPv4 struct{ IPAddress []address } `json:"ipv4"`
				IPv6 struct{ IPAddress []address } `json:"ipv6"`
			} `json:"interface"`
		} `json:"network"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return Instance{}, err
	}
	vm := doc.Compute
	if !shapeUUID.MatchString(vm.VMID) {
		return Instance{}, fmt.Errorf("vmId %.40q: %w", vm.VMID, errMalformed)
	}
	var c shapes
	i := Instance{
		Provider:         Azure,
		InstanceID:       vm.VMID,
		AccountID:        c.text("subscriptionId", vm.SubscriptionID, shapeUUID),
		InstanceType:     c.text("vmSize", vm.VMSize, shapeType),
		Region:           c.text("location", strings.ToLower(vm.Location), shapePlace),
		AvailabilityZone: c.text("zone", vm.Zone, azureZone),
	}
	if vm.Priority != nil {
		switch *vm.Priority {
		case "Spot":
			i.LifeCycle = Spot
		case "Low": // what was before spot, of scale sets
			i.LifeCycle = Preemptible
		case "Regular", "":
			i.LifeCycle = OnDemand
		default:
			c.bad("priority", *vm.Priority)
		}
	}
	if len(doc.Network.Interface) > 0 {
		first := doc.Network.Interface[0]
		if v4 := first.IPv4.IPAddress; len(v4) > 0 {
			i.LocalIPv4 = c.ipv4("privateIpAddress", v4[0].Private)
			i.PublicIPv4 = c.ipv4("publicIpAddress", v4[0].Public)
		}
		for _, v6 := range first.IPv6.IPAddress {
			c.ipv6(&i, "ipv6 privateIpAddress", v6.Private)
			c.ipv6(&i, "ipv6 publicIpAddress", v6.Public)
		}
	}
	return i, c.err()
}
