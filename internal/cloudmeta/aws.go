// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
)

var (
	awsEndpoints = []endpoint{
		linkLocal[0],
		{"http://[fd00:ec2::254]", netip.MustParseAddrPort("[fd00:ec2::254]:80")}, // where there is no IPv4
	}
	awsInstance = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)
	awsAccount  = regexp.MustCompile(`^[0-9]{12}$`)
)

const awsMetadata = "/latest/meta-data/"

// askAWS speaks IMDSv2. See "Access instance metadata for an EC2 instance" and "Instance identity documents" of the EC2 user guide.
func askAWS(a *asker) Instance {
	a.at(awsEndpoints)
	if err := a.getToken("X-aws-ec2-metadata-token"); err != nil {
		a.fail(explainAWSToken(err, a.connected.Load()))
		return Instance{}
	}
	i := awsIdentity(a)
	if i.InstanceID == "" {
		return Instance{}
	}
	if i.AccountID == "" {
		if b, err := a.get(awsMetadata + "identity-credentials/ec2/info"); err == nil {
			i.AccountID, err = parseAWSAccount(b)
			a.fail(err)
		}
	}
	i.LifeCycle = a.text(awsMetadata+"instance-life-cycle", shapePlace)
	i.AvailabilityZoneID = a.text(awsMetadata+"placement/availability-zone-id", shapePlace)
	i.PublicIPv4 = a.ipv4(awsMetadata + "public-ipv4") // 404: it has none
	if b, err := a.get(awsMetadata + "ipv6"); err == nil {
		var c shapes
		c.ipv6(&i, "ipv6", strings.TrimSpace(string(b)))
		a.fail(c.err())
	}
	return i
}

// explainAWSToken says what an error at the first request likely means.
func explainAWSToken(err error, reached bool) error {
	switch {
	case hasStatus(err, http.StatusForbidden):
		return fmt.Errorf("%w (is the metadata service of the instance switched off?)", err)
	case kindOf(err) == FailureTimeout && reached:
		return fmt.Errorf("the service was reached, but its answer with the token never came: the hop limit "+
			"(HttpPutResponseHopLimit) of the instance is likely 1, which ends in the host's network namespace: %w", err)
	}
	return err
}

// awsIdentity reads the identity document, or single values where the service has no document, as imitations of it.
func awsIdentity(a *asker) Instance {
	b, err := a.get("/latest/dynamic/instance-identity/document")
	if err == nil {
		i, err := parseAWSDocument(b)
		a.fail(err)
		return i
	}
	if !errors.Is(err, errAbsent) {
		return Instance{}
	}
	id, err := a.must(awsMetadata + "instance-id")
	if err != nil {
		return Instance{}
	}
	var c shapes
	i := Instance{Provider: AWS, InstanceID: c.text("instance-id", strings.TrimSpace(string(id)), awsInstance)}
	a.fail(c.err())
	if i.InstanceID == "" {
		return Instance{}
	}
	i.InstanceType = a.text(awsMetadata+"instance-type", shapeType)
	i.Region = a.text(awsMetadata+"placement/region", shapePlace)
	i.AvailabilityZone = a.text(awsMetadata+"placement/availability-zone", shapePlace)
	i.LocalIPv4 = a.ipv4(awsMetadata + "local-ipv4")
	return i
}

func parseAWSDocument(b []byte) (Instance, error) {
	var doc struct {
		AccountID        string `json:"accountId"`
		InstanceID       string `json:"instanceId"`
		InstanceType     string `json:"instanceType"`
		Region           string `json:"region"`
		AvailabilityZone string `json:"availabilityZone"`
		PrivateIP        string `json:"privateIp"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return Instance{}, fmt.Errorf("identity document: %w", err)
	}
	if !awsInstance.MatchString(doc.InstanceID) {
		return Instance{}, fmt.Errorf("identity document: instance %.40q: %w", doc.InstanceID, errMalformed)
	}
	var c shapes
	i := Instance{
		Provider:     AWS,
		InstanceID:   doc.InstanceID,
		AccountID:    c.text("accountId", doc.AccountID, awsAccount),
		InstanceType: c.text("instanceType", doc.InstanceType, shapeType),
		Region:       c.text("region", doc.Region, shapePlace),
		LocalIPv4:    c.ipv4("privateIp", doc.PrivateIP),
	}
	i.AvailabilityZone = c.zone("availabilityZone", doc.AvailabilityZone, i.Region)
	return i, c.err()
}

// parseAWSAccount reads identity-credentials/ec2/info, which has no secrets.
func parseAWSAccount(b []byte) (string, error) {
	var doc struct {
		AccountID string `json:"AccountId"`
	}
	if err := decodeJSON(b, &doc); err != nil {
		return "", fmt.Errorf("identity credentials: %w", err)
	}
	var c shapes
	account := c.text("AccountId", doc.AccountID, awsAccount)
	return account, c.err()
}
