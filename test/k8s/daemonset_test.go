// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// applyManifests lets the collector say whether the configuration is valid, and the API server whether it would take each
// object as it is, and then take it.
func applyManifests(t *testing.T, c *cluster, collector string) {
	t.Helper()
	config := c.write(t, "shipped.yaml", shipped(t, "ConfigMap")["data"].(object)["config.yaml"].(string))
	cmd := c.command(collector, "validate", "--config", config)
	cmd.Env = append(os.Environ(), "K8S_NODE_NAME="+nodeName, "POD_IP="+nodeIP)
	if _, err := output(cmd); err != nil {
		t.Fatal(err)
	}
	file, err := filepath.Abs(manifests)
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := json.Marshal(shipped(t, "Namespace"))
	if err != nil {
		t.Fatal(err)
	}
	c.create(t, string(namespace), nil) // in a dry run the others would have none
	for _, args := range [][]string{{"--dry-run=server"}, nil} {
		out, err := c.kubectl(append([]string{"apply", "--server-side", "--validate=strict", "-f", file}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("kubectl apply %v:\n%s", args, out)
	}
	// The controllers would make these.
	ca, err := os.ReadFile(filepath.Join(c.dir, "certificates/apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(object{"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": object{"name": "kube-root-ca.crt", "namespace": deployed}, "data": object{"ca.crt": string(ca)}})
	if err != nil {
		t.Fatal(err)
	}
	c.create(t, string(b), nil)
}

// checkDaemonSet runs the pod of the DaemonSet, as its controller would make it, and fails the test unless that works
// with no more rights than it has.
func checkDaemonSet(t *testing.T, c *cluster, w workload) {
	var set struct {
		Metadata struct{ Name, UID string }
		Spec     struct {
			Template struct{ Metadata, Spec object }
		}
	}
	if err := c.get(&set, "daemonset", deployed, "-n", deployed); err != nil {
		t.Fatal(err)
	}
	narrow(t, c, w.include())
	const name = deployed + "-9xk4d"
	p := set.Spec.Template
	p.Metadata["name"], p.Metadata["namespace"], p.Spec["nodeName"] = name, deployed, nodeName
	p.Metadata["ownerReferences"] = []object{{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": set.Metadata.Name,
		"uid": set.Metadata.UID, "controller": true}}
	b, err := json.Marshal(object{"apiVersion": "v1", "kind": "Pod", "metadata": p.Metadata, "spec": p.Spec})
	if err != nil {
		t.Fatal(err)
	}
	c.create(t, string(b), nil)
	t.Cleanup(func() {
		if t.Failed() {
			out, err := c.kubectl("logs", "-n", deployed, name, "--tail=30")
			t.Logf("the pod wrote: %s %v", out, err)
			out, err = c.kubectl("get", "events", "-n", deployed)
			t.Logf("its events: %s %v", out, err)
		}
	})
	eventually(t, 40*time.Second, "the pod of the DaemonSet is ready", func() error {
		var got pod
		if err := c.get(&got, "pod", name, "-n", deployed); err != nil {
			return err
		}
		for _, s := range got.Status.ContainerStatuses {
			if s.Ready {
				return nil
			}
		}
		return fmt.Errorf("%+v", got.Status)
	})
	eventually(t, 30*time.Second, "the pod knows all containers", func() error {
		page, err := c.kubectl("get", "--raw", "/api/v1/namespaces/"+deployed+"/pods/"+name+":8889/proxy/metrics")
		if err != nil {
			return err
		}
		var errs []error
		for _, r := range w.running() {
			s := w.status(r.pod, r.container)
			for metric, value := range map[string]int{"container_info": 1, "container_restarts_total": s.RestartCount} {
				errs = append(errs, hasLine(page, metric, fmt.Sprint(value), "container_id", s.id(), "k8s_pod_name", r.pod,
					"k8s_container_name", r.container, "k8s_node_name", nodeName, "host_name", nodeName))
			}
		}
		errs = append(errs, hasLine(page, "container_info", "1", "k8s_pod_name", name, "k8s_daemonset_name", deployed))
		// Sizes need to look into the mount namespace of another user's process.
		errs = append(errs, hasLine(page, "container_resources_disk_size_bytes", "", "k8s_pod_name", podDB, "volume", w.volume))
		return errors.Join(errs...)
	})
}

// narrow narrows the configuration that was applied to some containers.
func narrow(t *testing.T, c *cluster, include []string) {
	t.Helper()
	config := shippedConfig(t)
	receiver := config["receivers"].(object)["ebpf_container"].(object)
	receiver["containers"] = object{"include": include}
	receiver["collection_interval"] = "1s"
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := json.Marshal(object{"data": object{"config.yaml": string(text)}})
	if err == nil {
		_, err = c.kubectl("patch", "configmap", deployed, "-n", deployed, "--type=merge", "-p", string(patch))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hasLine returns an error unless a page of Prometheus has a series with these labels and the value, "" for any.
func hasLine(page, metric, value string, labels ...string) error {
	var others strings.Builder
lines:
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, metric+"{") {
			continue
		}
		others.WriteString(line)
		if value != "" && !strings.HasSuffix(line, " "+value+"\n") {
			continue
		}
		for i := 0; i < len(labels); i += 2 {
			if !strings.Contains(line, fmt.Sprintf("%s=%q", labels[i], labels[i+1])) {
				continue lines
			}
		}
		return nil
	}
	return fmt.Errorf("no %s with %v and value %s; there are\n%s", metric, labels, value, others.String())
}
