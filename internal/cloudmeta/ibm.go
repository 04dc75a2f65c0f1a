// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
)

const (
	ibmHost    = "api.metadata.cloud.ibm.com"
	ibmVersion = "?version=2025-04-22" // before 2025-08-26, when the path of the token changes
)

// The service speaks HTTP or HTTPS, never both; which one is a property of the instance. Its address is documented for HTTP and
// link-local, so the name need not be looked up, which a collector in a container could not do where DNS goes through the
// cluster. HTTPS wants the name, and has a certificate for it.
var (
	ibmEndpoints = []endpoint{
		{"http://" + ibmHost, netip.MustParseAddrPort("169.254.169.254:80")},
		{"https://" + ibmHost, netip.MustParseAddrPort("169.254.169.254:443")},
	}
	ibmAccount = regexp.MustCompile(`^crn:v1:[^:]*:[^:]*:[^:]*:[^:]*:(?:a/)?([0-9A-Za-z]{1,64}):`)
)

// askIBM asks with a token for the instance, which the service does not tell the public address of. The service is switched off
// unless the user has switched it on. See "VPC Metadata API".
func askIBM(a *asker) Instance {
	a.at(ibmEndpoints, "Accept", "application/json")
	a.another = func(error) bool { return true }
	b, err := a.do(http.MethodPut, "/instance_identity/v1/token"+ibmVersion, `{"expires_in": 300}`,
		"Metadata-Flavor", "ibm", "Content-Type", "application/json")
	if err != nil {
		a.fail(err)
		return Instance{}
	}
	token, err := parseIBMToken(b)
	if err != nil {
		a.fail(err)
		return Instance{}
	}
	a.header["Authorization"] = "Bearer " + token
	b, err = a.must("/metadata/v1/instance" + ibmVersion)
	if err != nil {
		return Instance{}
	}
	i, err := parseIBM(b)
	a.fail(err)
	return i
}

func parseIBMToken(b []byte) (string, error) {
	var doc struct {
		Token string `json:"access_token"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return doc.Token, checkToken(doc.Token)
}

func parseIBM(b []byte) (Instance, error) {
	type nic struct {
		PrimaryIP struct {
			Address string `json:"address"`
		} `json:"primary_ip"`
	}
	var doc struct {
		ID      string `json:"id"`
		CRN     string `json:"crn"`
		Profile struct {
			Name string `json:"name"`
		} `json:"profile"`
		Zone struct {
			Name string `json:"name"`
		} `json:"zone"`
		Availability struct {
			Class string `json:"class"`
		} `json:"availability"`
		Interface  nic `json:"primary_network_interface"`
		Attachment nic `json:"primary_network_attachment"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return Instance{}, err
	}
	account := ibmAccount.FindStringSubmatch(doc.CRN)
	if account == nil || doc.ID == "" || !shapeType.MatchString(doc.ID) {
		return Instance{}, fmt.Errorf("id %.40q, crn %.80q: %w", doc.ID, doc.CRN, errMalformed)
	}
	var c shapes
	zone := c.text("zone", doc.Zone.Name, shapePlace)
	i := Instance{
		Provider:         IBM,
		InstanceID:       doc.ID,
		AccountID:        account[1],
		InstanceType:     c.text("profile", doc.Profile.Name, shapeType),
		Region:           regionOf(zone), // us-south of us-south-1
		AvailabilityZone: zone,
		LocalIPv4:        c.ipv4("primary_network_interface", doc.Interface.PrimaryIP.Address),
	}
	if !i.LocalIPv4.IsValid() {
		i.LocalIPv4 = c.ipv4("primary_network_attachment", doc.Attachment.PrimaryIP.Address)
	}
	switch doc.Availability.Class { // since January 2026
	case "spot":
		i.LifeCycle = Spot
	case "standard":
		i.LifeCycle = OnDemand
	}
	return i, c.err()
}
