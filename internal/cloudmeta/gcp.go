// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
)

var (
	gcpEndpoints = []endpoint{
		linkLocal[0],
		{"http://[fd20:ce::254]", netip.MustParseAddrPort("[fd20:ce::254]:80")}, // of instances without IPv4
	}
	gcpZone  = regexp.MustCompile(`^projects/[0-9]+/zones/([a-z0-9][a-z0-9-]{0,62})$`)
	gcpType  = regexp.MustCompile(`^projects/[0-9]+/machineTypes/([A-Za-z0-9][A-Za-z0-9._-]{0,127})$`)
	gcpModel = regexp.MustCompile(`^[A-Z_]{1,40}$`)
	gcpBool  = regexp.MustCompile(`^(?i:true|false)$`)
)

// askGCP reads single values: all in one answer may be longer than the limit, as it has the user's own metadata too. See "VM
// metadata" and "Predefined metadata keys" of the Compute Engine documentation.
func askGCP(a *asker) Instance {
	const flavor, google = "Metadata-Flavor", "Google"
	a.at(gcpEndpoints, flavor, google)
	a.proof = func(h http.Header) bool { return h.Get(flavor) == google }
	const instance = "/computeMetadata/v1/instance/"

	b, err := a.must(instance + "id")
	if err != nil {
		return Instance{}
	}
	id := strings.TrimSpace(string(b))
	if !shapeDigit.MatchString(id) {
		a.fail(fmt.Errorf("instance/id %.40q: %w", id, errMalformed))
		return Instance{}
	}
	i := Instance{Provider: GCP, InstanceID: id}
	i.AccountID = a.text("/computeMetadata/v1/project/project-id", shapeID)
	if m := gcpZone.FindStringSubmatch(a.text(instance+"zone", gcpZone)); m != nil {
		i.AvailabilityZone, i.Region = m[1], regionOf(m[1])
	}
	if m := gcpType.FindStringSubmatch(a.text(instance+"machine-type", gcpType)); m != nil {
		i.InstanceType = m[1]
	}
	i.LifeCycle = gcpLifeCycle(
		a.text(instance+"scheduling/provisioning-model", gcpModel),
		a.text(instance+"scheduling/preemptible", gcpBool),
	)
	if b, err := a.get(instance + "network-interfaces/0/?recursive=true"); err == nil {
		a.fail(parseGCPInterface(b, &i))
	}
	return i
}

// gcpLifeCycle tells spot from preemptible: a spot instance is preemptible too.
func gcpLifeCycle(model, preemptible string) string {
	switch {
	case model == "SPOT":
		return Spot
	case strings.EqualFold(preemptible, "true"):
		return Preemptible
	case model != "" || preemptible != "":
		return OnDemand
	}
	return ""
}

// parseGCPInterface adds the addresses of an interface to the instance.
func parseGCPInterface(b []byte, i *Instance) error {
	var doc struct {
		IP            string   `json:"ip"`
		IPv6s         []string `json:"ipv6s"`
		AccessConfigs []struct {
			ExternalIP string `json:"externalIp"`
		} `json:"accessConfigs"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return fmt.Errorf("network interface: %w", err)
	}
	var c shapes
	i.LocalIPv4 = c.ipv4("ip", doc.IP)
	for _, config := range doc.AccessConfigs {
		if !i.PublicIPv4.IsValid() {
			i.PublicIPv4 = c.ipv4("externalIp", config.ExternalIP)
		}
	}
	for _, addr := range doc.IPv6s {
		c.ipv6(i, "ipv6s", addr)
	}
	return c.err()
}
