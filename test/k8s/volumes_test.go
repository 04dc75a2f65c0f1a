// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"
)

const claim = "data-db-0" // as a stateful set names it

// createClaim makes a claim and a volume for it, a directory of the node where provisioners of local volumes put it, and
// returns the name of the volume. The controllers would bind them.
func createClaim(t *testing.T, c *cluster) string {
	t.Helper()
	spec := object{"accessModes": []string{"ReadWriteOnce"}, "storageClassName": ""}
	var made struct{ Metadata struct{ UID string } }
	create := func(kind, name string, spec object) {
		metadata := object{"name": name}
		if kind == "PersistentVolumeClaim" {
			metadata["namespace"] = namespace
		}
		b, err := json.Marshal(object{"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})
		if err != nil {
			t.Fatal(err)
		}
		c.create(t, string(b), &made)
	}
	const volume = "pvc-6a9ff04b-0e5a-4d3d-8ee1-3a23de42bd04"
	spec["volumeName"], spec["resources"] = volume, object{"requests": object{"storage": "1Gi"}}
	create("PersistentVolumeClaim", claim, spec)
	uid := made.Metadata.UID
	delete(spec, "volumeName")
	delete(spec, "resources")

	path := fmt.Sprintf("/var/lib/local-path-provisioner/%s_%s_%s", volume, namespace, claim)
	if err := os.Chmod(c.makeDir(t, path), 0o777); err != nil {
		t.Fatal(err)
	}
	spec["capacity"], spec["hostPath"] = object{"storage": "1Gi"}, object{"path": path}
	spec["claimRef"] = object{"namespace": namespace, "name": claim, "uid": uid}
	create("PersistentVolume", volume, spec)
	_, err := c.kubectl("patch", "pvc", claim, "-n", namespace, "--subresource=status", "--type=merge",
		"-p", `{"status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}}`)
	if err != nil {
		t.Fatal(err)
	}
	return volume
}

// checkVolumes fails the test unless the volume of a claim is given by its name, with the size of its file system.
func checkVolumes(t *testing.T, col *collector, w workload) {
	eventually(t, 10*time.Second, "volume is named", func() error {
		p, err := col.oneOf("coroot", "container.resources.disk.size", map[string]any{"container_id": "/k8s/shop/db-0/postgres"},
			map[string]any{"mount_point": "/data", "volume": w.volume})
		if err == nil && p.value < 1<<20 {
			err = fmt.Errorf("%v bytes", p.value)
		}
		return err
	})
}
