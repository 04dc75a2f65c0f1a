// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"strings"
	"testing"
)

func TestDetect(t *testing.T) {
	type files = map[string]string
	for _, tt := range []struct {
		name string
		sys  files
		want Provider
	}{
		{name: "no firmware"},
		{name: "Xen instance", sys: files{"hypervisor/uuid": "EC2E1916-9099-7CAF-FD21-012345ABCDEF"}, want: AWS},
		{name: "Xen of somebody else", sys: files{"hypervisor/uuid": "00000000-0000-0000-0000-000000000000"}},
		{name: "Nitro instance", sys: firmware[AWS], want: AWS},
		{name: "Google", sys: firmware[GCP], want: GCP},
		{name: "Google by its system alone", sys: files{"class/dmi/id/sys_vendor": "Google"}, want: GCP},
		{name: "Azure", sys: firmware[Azure], want: Azure},
		{name: "Hyper-V at home", sys: files{
			"class/dmi/id/sys_vendor": "Microsoft Corporation", "class/dmi/id/board_vendor": "Microsoft Corporation",
			"class/dmi/id/chassis_asset_tag": "1234-5678-9012-3456-7890-1234-56",
		}},
		{name: "Hetzner", sys: firmware[Hetzner], want: Hetzner},
		{name: "DigitalOcean", sys: firmware[DigitalOcean], want: DigitalOcean},
		{name: "Alibaba", sys: firmware[Alibaba], want: Alibaba},
		{name: "Scaleway", sys: firmware[Scaleway], want: Scaleway},
		{name: "IBM", sys: firmware[IBM], want: IBM},
		{name: "Oracle", sys: firmware[Oracle], want: Oracle},
		{name: "a machine of one's own", sys: files{
			"class/dmi/id/sys_vendor": "Dell Inc.", "class/dmi/id/board_vendor": "Dell Inc.", "class/dmi/id/chassis_vendor": "Dell Inc.",
		}},
		{name: "KVM", sys: files{"class/dmi/id/sys_vendor": "QEMU", "class/dmi/id/chassis_vendor": "QEMU"}},
		{name: "a long text", sys: files{"class/dmi/id/sys_vendor": strings.Repeat("Google", 1000)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := detect(machine(t, tt.sys)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestProviderNames(t *testing.T) {
	for _, tt := range []struct {
		in              string
		want            Provider
		known           bool
		cloud, platform string
	}{
		{"aws", AWS, true, "aws", "aws_ec2"},
		{"AWS", AWS, true, "aws", "aws_ec2"},
		{"alibaba_cloud", Alibaba, true, "alibaba_cloud", "alibaba_cloud_ecs"},
		{"digitalocean", DigitalOcean, true, "digitalocean", ""},
		{"Azure", Azure, true, "azure", "azure.vm"},
		{"OpenStack", "OpenStack", false, "openstack", ""},
	} {
		got, known := ParseProvider(tt.in)
		if got != tt.want || known != tt.known || got.CloudProvider() != tt.cloud || got.CloudPlatform() != tt.platform {
			t.Errorf("%s: %s %v %s %s", tt.in, got, known, got.CloudProvider(), got.CloudPlatform())
		}
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   Instance
		ok   bool
	}{
		{"nothing", Instance{}, true},
		{"letters of the world", Instance{Provider: "ОблакО", Region: "東京"}, true},
		{"256 bytes", Instance{InstanceID: strings.Repeat("x", 256)}, true},
		{"257 bytes", Instance{InstanceID: strings.Repeat("x", 257)}, false},
		{"not UTF-8", Instance{AvailabilityZone: "a\xffb"}, false},
		{"line feed", Instance{AccountID: "1\n2"}, false},
	} {
		if err := tt.in.Validate(); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
