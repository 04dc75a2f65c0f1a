// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	addr    = netip.MustParseAddr
)

// document is what a provider documents, and what is to be learned from it.
type document struct {
	name     string // of the file
	provider Provider
	v1       bool // the service knows no tokens
	requests int64
	want     Instance
}

var documented = []document{
	{name: "aws-on-demand", provider: AWS, requests: 6, want: Instance{
		AccountID: "123456789012", InstanceID: "i-1234567890abcdef0", InstanceType: "t2.micro", LifeCycle: OnDemand,
		Region: "us-west-2", AvailabilityZone: "us-west-2b", AvailabilityZoneID: "usw2-az2",
		LocalIPv4: addr("10.158.112.84"), PublicIPv4: addr("203.0.113.25"),
	}},
	{name: "aws-spot", provider: AWS, requests: 7, want: Instance{
		AccountID: "210987654321", InstanceID: "i-0123abcd", InstanceType: "c6gn.16xlarge", LifeCycle: Spot,
		Region: "us-west-2", AvailabilityZone: "us-west-2-lax-1a", AvailabilityZoneID: "usw2-lax1-az1",
		LocalIPv4: addr("10.0.1.7"), PublicIPv6: addr("2001:db8:8:4::2"),
	}},
	{name: "aws-v1", provider: AWS, v1: true, requests: 12, want: Instance{
		InstanceID: "i-0abcdef1234567890", InstanceType: "m5.large", Region: "eu-west-1", AvailabilityZone: "eu-west-1c",
		LocalIPv4: addr("10.2.3.4"),
	}},
	{name: "gcp-on-demand", provider: GCP, requests: 7, want: Instance{
		AccountID: "example.com:my-project", InstanceID: "4520031799277581759", InstanceType: "n1-standard-1", LifeCycle: OnDemand,
		Region: "us-central1", AvailabilityZone: "us-central1-b",
		LocalIPv4: addr("10.128.0.2"), PublicIPv4: addr("203.0.113.3"),
	}},
	{name: "gcp-spot", provider: GCP, requests: 7, want: Instance{
		AccountID: "example.com:my-project", InstanceID: "4520031799277581759", InstanceType: "custom-2-4096", LifeCycle: Spot,
		Region: "us-central1", AvailabilityZone: "us-central1-b",
		LocalIPv4: addr("10.128.0.2"), PublicIPv6: addr("2001:db8:4000:318:0:7:0:0"),
	}},
	{name: "gcp-preemptible", provider: GCP, requests: 7, want: Instance{
		AccountID: "example.com:my-project", InstanceID: "4520031799277581759", InstanceType: "n1-standard-1", LifeCycle: Preemptible,
		Region: "us-central1", AvailabilityZone: "us-central1-b",
		LocalIPv4: addr("10.128.0.2"), LocalIPv6: addr("fd20:db8:0:1::"),
	}},
	{name: "azure-regular", provider: Azure, requests: 1, want: Instance{
		AccountID: "8d10da13-8125-4ba9-a717-bf7490507b3d", InstanceID: "02aab8a4-74ef-476e-8182-f6d2ba4166a6",
		InstanceType: "Standard_A3", LifeCycle: OnDemand, Region: "westus", AvailabilityZone: "3",
		LocalIPv4: addr("10.144.133.132"), PublicIPv4: addr("203.0.113.77"),
	}},
	{name: "azure-spot", provider: Azure, requests: 1, want: Instance{
		AccountID: "8d10da13-8125-4ba9-a717-bf7490507b3d", InstanceID: "02aab8a4-74ef-476e-8182-f6d2ba4166a6",
		InstanceType: "Standard_A3", LifeCycle: Spot, Region: "westeurope",
		LocalIPv4: addr("10.144.133.132"), LocalIPv6: addr("fd00:db8:deca:deed::4"),
	}},
	{name: "hetzner", provider: Hetzner, requests: 2, want: Instance{
		InstanceID: "42001337", Region: "eu-central", AvailabilityZone: "fsn1-dc14",
		LocalIPv4: addr("10.0.0.2"), PublicIPv4: addr("203.0.113.9"), PublicIPv6: addr("2001:db8:beef:beef::1"),
	}},
	{name: "hetzner-old", provider: Hetzner, requests: 1, want: Instance{
		InstanceID: "7", Region: "eu-central", AvailabilityZone: "nbg1-dc3", LocalIPv4: addr("10.9.0.2"),
	}},
	{name: "digitalocean", provider: DigitalOcean, requests: 1, want: Instance{
		InstanceID: "2756294", Region: "nyc3", AvailabilityZone: "nyc3",
		LocalIPv4: addr("10.132.255.113"), PublicIPv4: addr("203.0.113.113"), PublicIPv6: addr("2001:db8:800:10::17d:2001"),
	}},
	{name: "alibaba", provider: Alibaba, requests: 10, want: Instance{
		AccountID: "1609031234567890", InstanceID: "i-bp67acfmxazb4p1ex3mn", InstanceType: "ecs.g7.large",
		Region: "cn-hangzhou", AvailabilityZone: "cn-hangzhou-i",
		LocalIPv4: addr("192.168.12.7"), PublicIPv4: addr("203.0.113.200"), PublicIPv6: addr("2001:db8:4005:80a::1"),
	}},
	{name: "alibaba-v1", provider: Alibaba, v1: true, requests: 10, want: Instance{
		AccountID: "1609031234567890", InstanceID: "i-bp67acfmxazb4p1ex3mn", InstanceType: "ecs.c6.xlarge",
		Region: "ap-southeast-1", AvailabilityZone: "ap-southeast-1a", LocalIPv4: addr("192.168.12.7"),
	}},
	{name: "scaleway", provider: Scaleway, requests: 1, want: Instance{
		AccountID: "10542306-0c75-4265-9c2c-1fbfe4ea0bf0", InstanceID: "daa2ea5a-0ee6-4cdc-9f1a-e0d1cb4e6d86",
		InstanceType: "STARDUST1-S", Region: "nl-ams", AvailabilityZone: "nl-ams-1",
		PublicIPv4: addr("203.0.113.42"), PublicIPv6: addr("2001:db8:f44:20::1"),
	}},
	{name: "scaleway-private", provider: Scaleway, requests: 1, want: Instance{
		AccountID: "10542306-0c75-4265-9c2c-1fbfe4ea0bf0", InstanceID: "daa2ea5a-0ee6-4cdc-9f1a-e0d1cb4e6d86",
		InstanceType: "DEV1-S", Region: "fr-par", AvailabilityZone: "fr-par-1",
		LocalIPv4: addr("10.64.12.3"), PublicIPv6: addr("2001:db8:4444:9876::42:999"),
	}},
	{name: "ibm", provider: IBM, requests: 2, want: Instance{
		AccountID: "0123456789abcdef0123456789abcdef", InstanceID: "0717_1e09281b-f177-46fb-b1f1-bc152b2e391a",
		InstanceType: "bx2-2x8", Region: "us-south", AvailabilityZone: "us-south-1", LocalIPv4: addr("10.240.64.12"),
	}},
	{name: "ibm-spot", provider: IBM, requests: 2, want: Instance{
		AccountID: "123456789012", InstanceID: "02c7_1e09281b-f177-46fb-b1f1-bc152b2e391a",
		InstanceType: "cx3d-4x10", LifeCycle: Spot, Region: "eu-de", AvailabilityZone: "eu-de-2", LocalIPv4: addr("10.243.0.4"),
	}},
	{name: "oracle", provider: Oracle, requests: 2, want: Instance{
		AccountID:    "ocid1.tenancy.oc1..aaaaaaaao7f7cccogqrg5emjxkxm",
		InstanceID:   "ocid1.instance.oc1.phx.anyhqljtniwq6syc3nex55sep5w34qbwmw6a",
		InstanceType: "VM.Standard.E4.Flex", LifeCycle: OnDemand, Region: "us-phoenix-1", AvailabilityZone: "us-phoenix-1-ad-1",
		AvailabilityZoneID: "phx-ad-3", LocalIPv4: addr("10.0.0.230"), PublicIPv6: addr("2001:db8:c024:4520::7"),
	}},
	{name: "oracle-preemptible", provider: Oracle, requests: 2, want: Instance{
		InstanceID: "ocid1.instance.oc1.ap-tokyo-1.anxhiljrniwq6syc", InstanceType: "VM.Standard3.Flex", LifeCycle: Preemptible,
		Region: "ap-tokyo-1", AvailabilityZone: "ap-tokyo-1-ad-1", AvailabilityZoneID: "ap-tokyo-1-ad-1",
		LocalIPv4: addr("10.0.0.5"), PublicIPv6: addr("2001:db8:c0::5"),
	}},
}

func firstOf(p Provider) document {
	d := documented[slices.IndexFunc(documented, func(d document) bool { return d.provider == p })]
	d.want.Provider = p
	return d
}

func TestDocumentedAnswers(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
	t.Setenv("GCE_METADATA_HOST", "192.0.2.1")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://192.0.2.1")
	for _, tt := range documented {
		t.Run(tt.name, func(t *testing.T) {
			h := serve(readPages(t, tt.name))
			if !tt.v1 {
				h = guard(tt.provider, h)
			}
			c := newCloud(t, tt.provider, h)
			w := open(t, c.options())
			until(t, "an attempt", asked(w))
			tt.want.Provider = tt.provider
			got, ok := w.Instance()
			if diff := cmp.Diff(tt.want, got, cmpAddr); diff != "" || !ok {
				t.Errorf("%v (-want +got):\n%s", ok, diff)
			}
			s := w.Status()
			if s.LastErr != nil || len(s.Failures) > 0 {
				t.Errorf("%v: %v", s.Failures, s.LastErr)
			}
			if n := c.requests.Load(); n != tt.requests || s.Requests != uint64(n) {
				t.Errorf("%d requests, status says %d, want %d", n, s.Requests, tt.requests)
			}
			if s.NamespaceErr != nil || s.HostNetwork != (c.dial == nil) {
				t.Errorf("asked from the host's network namespace: %v, %v", s.HostNetwork, s.NamespaceErr)
			}
			if err := got.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUserDataThatFillTheAnswer has answers of more than 64 KiB, which user data make.
func TestUserDataThatFillTheAnswer(t *testing.T) {
	large := strings.Repeat("A", maxAnswer)
	for _, tt := range []struct {
		name     string
		provider Provider
		pages    func(t *testing.T) map[string]page
		want     Instance
	}{
		{name: "azure: an older version has none", provider: Azure, pages: func(t *testing.T) map[string]page {
			pages := readPages(t, "azure-regular")
			const newer = "GET " + azureInstance + "2021-05-01"
			p := pages[newer]
			pages["GET "+azureInstance+"2020-09-01"] = p
			p.body = strings.Replace(p.body, `"Zm9vYmFy"`, `"`+large+`"`, 1)
			pages[newer] = p
			return pages
		}, want: firstOf(Azure).want},
		{name: "digitalocean: values one by one", provider: DigitalOcean, pages: func(t *testing.T) map[string]page {
			pages := readPages(t, "digitalocean-singly")
			pages["GET /metadata/v1.json"] = page{body: `{"user_data":"` + large + `"}`}
			return pages
		}, want: Instance{
			InstanceID: "2756294", Region: "fra1", AvailabilityZone: "fra1",
			PublicIPv4: addr("203.0.113.113"), PublicIPv6: addr("2001:db8:800:10::17d:2001"),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCloud(t, tt.provider, guard(tt.provider, serve(tt.pages(t))))
			w := open(t, c.options())
			until(t, "an attempt", asked(w))
			tt.want.Provider = tt.provider
			got, _ := w.Instance()
			if diff := cmp.Diff(tt.want, got, cmpAddr); diff != "" || w.Status().LastErr != nil {
				t.Errorf("%v (-want +got):\n%s", w.Status().LastErr, diff)
			}
		})
	}
}

func TestAWSVersion1OnlyWhereTokensAreUnknown(t *testing.T) {
	pages := serve(readPages(t, "aws-v1"))
	for _, tt := range []struct {
		status int
		known  bool
	}{
		{http.StatusNotFound, true},
		{http.StatusMethodNotAllowed, true},
		{http.StatusForbidden, false},
		{http.StatusBadRequest, false},
		{http.StatusUnauthorized, false},
		{http.StatusInternalServerError, false},
	} {
		t.Run(http.StatusText(tt.status), func(t *testing.T) {
			c := newCloud(t, AWS, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					w.WriteHeader(tt.status)
					return
				}
				pages.ServeHTTP(w, r)
			}))
			w := open(t, c.options())
			until(t, "an attempt", asked(w))
			if _, known := w.Instance(); known != tt.known {
				t.Errorf("known %v, want %v: %v", known, tt.known, w.Status().LastErr)
			}
		})
	}
}
