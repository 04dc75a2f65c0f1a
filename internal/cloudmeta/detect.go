// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

// azureAssetTag is the chassis asset tag of every virtual machine of Azure. The vendor, "Microsoft Corporation", is that of any
// Hyper-V.
const azureAssetTag = "7783-7084-3265-9085-8269-3286-77"

// detect tells the provider by what the firmware says, "" for none. It reads files below root alone.
func detect(root string) Provider {
	// Instances on Xen have it; those on Nitro tell by DMI.
	if strings.HasPrefix(strings.ToLower(firstLine(filepath.Join(root, "sys/hypervisor/uuid"))), "ec2") {
		return AWS
	}
	dmi := func(name string) string { return firstLine(filepath.Join(root, "sys/class/dmi/id", name)) }
	for _, vendor := range []string{dmi("board_vendor"), dmi("sys_vendor")} {
		switch vendor {
		case "Amazon EC2":
			return AWS
		case "Google":
			return GCP
		case "DigitalOcean":
			return DigitalOcean
		case "Hetzner":
			return Hetzner
		case "Alibaba Cloud":
			return Alibaba
		case "Scaleway":
			return Scaleway
		}
	}
	switch tag := dmi("chassis_asset_tag"); {
	case tag == azureAssetTag:
		return Azure
	case tag == "OracleCloud.com":
		return Oracle
	}
	if strings.HasPrefix(dmi("chassis_vendor"), "IBM:Cloud Compute Server") {
		return IBM
	}
	return ""
}

// firstLine reads the first line of a small file, "" when it cannot be read.
func firstLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}
