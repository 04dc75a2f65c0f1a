// SPDX-License-Identifier: Apache-2.0

package k8s

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

const (
	manifests = "../../deploy/kubernetes.yaml"
	helmFile  = "../../deploy/values.yaml"
	deployed  = "ebpf-container" // what all objects are called, the namespace too
)

type object = map[string]any

// shipped returns the object of a kind in the manifests.
func shipped(t *testing.T, kind string) object {
	t.Helper()
	b, err := os.ReadFile(manifests)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var o object
		switch err := d.Decode(&o); {
		case errors.Is(err, io.EOF):
			t.Fatalf("no %s in %s", kind, manifests)
		case err != nil:
			t.Fatal(err)
		case o["kind"] == kind:
			return o
		}
	}
}

// shippedConfig returns the configuration of the collector in the manifests.
func shippedConfig(t *testing.T) object {
	t.Helper()
	var config object
	if err := yaml.Unmarshal([]byte(shipped(t, "ConfigMap")["data"].(object)["config.yaml"].(string)), &config); err != nil {
		t.Fatal(err)
	}
	return config
}

// TestHelmValuesAreTheManifests holds the two ways to deploy together: the same configuration, rights and mounts.
func TestHelmValuesAreTheManifests(t *testing.T) {
	b, err := os.ReadFile(helmFile)
	if err != nil {
		t.Fatal(err)
	}
	var values object
	if err := yaml.Unmarshal(b, &values); err != nil {
		t.Fatal(err)
	}
	pod := shipped(t, "DaemonSet")["spec"].(object)["template"].(object)["spec"].(object)
	container := pod["containers"].([]any)[0].(object)
	// The chart mounts the configuration itself.
	want := object{
		"alternateConfig":   shippedConfig(t),
		"clusterRole":       shipped(t, "ClusterRole")["rules"],
		"extraEnvs":         container["env"],
		"extraVolumes":      pod["volumes"].([]any)[1:],
		"extraVolumeMounts": container["volumeMounts"].([]any)[1:],
		"hostPID":           pod["hostPID"],
		"nodeSelector":      pod["nodeSelector"],
		"resources":         container["resources"],
		"securityContext":   container["securityContext"],
		"tolerations":       pod["tolerations"],
	}
	got := object{}
	for key := range want {
		got[key] = values[key]
	}
	got["clusterRole"] = values["clusterRole"].(object)["rules"]
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s against %s (-manifests +values):\n%s", helmFile, manifests, diff)
	}
}
