// SPDX-License-Identifier: Apache-2.0

// Package cloudmeta tells on which cloud machine this node runs: provider, account, instance, type, place and addresses.
//
// Which cloud it is the firmware tells (DMI), without a network call; on a machine of no cloud nothing is ever asked. The
// provider's metadata service is then asked in the background, from the host's network namespace, and asked again each hour.
// Watcher.Instance gives what is known and never waits.
//
// What answers at the well-known addresses may be anything: a captive portal, a proxy, somebody's test server. An answer is
// believed only when it has the form that the provider documents: at most 64 KiB, no redirect, a plausible content type, and
// each value of the shape that such a value has. See docs/decisions/013-cloud-metadata-by-hand-or-library.md.
package cloudmeta

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Provider names a cloud, as the label `provider` of node_cloud_info has it.
type Provider string

// The clouds whose metadata services are known.
const (
	AWS          Provider = "AWS"
	GCP          Provider = "GCP"
	Azure        Provider = "Azure"
	Hetzner      Provider = "Hetzner"
	DigitalOcean Provider = "DigitalOcean"
	Alibaba      Provider = "Alibaba"
	Scaleway     Provider = "Scaleway"
	IBM          Provider = "IBM"
	Oracle       Provider = "Oracle"
)

// providers has what the semantic conventions (1.41) call each cloud and its machines. DigitalOcean, Scaleway and the machines of
// IBM are not in there; their names are those of the collector's resource detection processor, or empty.
var providers = []struct {
	name            Provider
	cloud, platform string
	ask             func(*asker) Instance
}{
	{AWS, "aws", "aws_ec2", askAWS},
	{GCP, "gcp", "gcp_compute_engine", askGCP},
	{Azure, "azure", "azure.vm", askAzure},
	{Hetzner, "hetzner", "hetzner.cloud_server", askHetzner},
	{DigitalOcean, "digitalocean", "", askDigitalOcean},
	{Alibaba, "alibaba_cloud", "alibaba_cloud_ecs", askAlibaba},
	{Scaleway, "scaleway_cloud", "scaleway_cloud_compute", askScaleway},
	{IBM, "ibm_cloud", "ibm_cloud.vpc", askIBM},
	{Oracle, "oracle_cloud", "oracle_cloud_compute", askOracle},
}

// ParseProvider finds the provider that a user means by its name or that of the semantic conventions, in any case. Of a name
// that it does not know it returns false, and the name.
func ParseProvider(s string) (Provider, bool) {
	for _, p := range providers {
		if strings.EqualFold(s, string(p.name)) || strings.EqualFold(s, p.cloud) {
			return p.name, true
		}
	}
	return Provider(s), false
}

// CloudProvider is the value of the attribute cloud.provider. It is the name in lower case for a provider that is not known.
func (p Provider) CloudProvider() string {
	for _, known := range providers {
		if p == known.name {
			return known.cloud
		}
	}
	return strings.ToLower(string(p))
}

// CloudPlatform is the value of the attribute cloud.platform for a machine of the provider, "" where there is none.
func (p Provider) CloudPlatform() string {
	for _, known := range providers {
		if p == known.name {
			return known.platform
		}
	}
	return ""
}

// The life cycles of an instance. AWS has some more, as "scheduled" and "capacity-block", which are given as they are.
const (
	OnDemand    = "on-demand"
	Spot        = "spot"        // may be taken away at any time
	Preemptible = "preemptible" // as Spot; what GCP had before, and Oracle's word for it
)

// Instance is one machine of a cloud. What is not known, or what the provider does not tell, is empty. Texts are valid UTF-8
// without control characters, at most 256 bytes long.
type Instance struct {
	Provider         Provider
	AccountID        string // AWS account, GCP project, Azure subscription, Scaleway organization, Oracle tenancy
	InstanceID       string
	InstanceType     string // as "m5.large"
	LifeCycle        string // OnDemand, Spot or Preemptible
	Region           string
	AvailabilityZone string
	// AvailabilityZoneID tells the place where AvailabilityZone is a name that depends on the account: AWS, Oracle.
	AvailabilityZoneID string

	// The first addresses of the first interface. An IPv6 address is public unless it is a unique local one (fc00::/7).
	LocalIPv4, PublicIPv4, LocalIPv6, PublicIPv6 netip.Addr
}

const maxValueBytes = 256

var errBadValue = errors.New("no value of an instance")

// Validate says whether all texts can be labels: valid UTF-8, no control characters, at most 256 bytes.
func (i Instance) Validate() error {
	var errs []error
	for _, text := range i.texts() {
		errs = append(errs, checkText(*text))
	}
	return errors.Join(errs...)
}

func (i *Instance) texts() []*string {
	return []*string{
		(*string)(&i.Provider), &i.AccountID, &i.InstanceID, &i.InstanceType, &i.LifeCycle, &i.Region, &i.AvailabilityZone,
		&i.AvailabilityZoneID,
	}
}

func (i *Instance) addresses() []*netip.Addr {
	return []*netip.Addr{&i.LocalIPv4, &i.PublicIPv4, &i.LocalIPv6, &i.PublicIPv6}
}

func checkText(s string) error {
	switch {
	case len(s) > maxValueBytes:
		return fmt.Errorf("%q... of %d bytes: %w", s[:16], len(s), errBadValue)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("%q: %w", s, errBadValue)
	}
	return nil
}

// or is what i has, and what is empty there from other.
func (i Instance) or(other Instance) Instance {
	from := other.texts()
	for n, text := range i.texts() {
		if *text == "" {
			*text = *from[n]
		}
	}
	fromAddr := other.addresses()
	for n, addr := range i.addresses() {
		if !addr.IsValid() {
			*addr = *fromAddr[n]
		}
	}
	return i
}
