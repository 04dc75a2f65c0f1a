// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	namespace = "shop"
	restarts  = 4 // of the container that ends by itself
)

// The pods, named as the controllers would.
const (
	podWeb   = "web-7d4b9c6f5-x2x4z" // of a deployment
	podDB    = "db-0"                // of a stateful set
	podCrash = "crash"
)

// pod is what the API tells of a pod.
type pod struct {
	Metadata struct {
		Name, Namespace, UID string
	}
	Status struct {
		Phase             string
		ContainerStatuses []containerStatus
	}
}

type containerStatus struct {
	Name         string
	Ready        bool
	RestartCount int
	Image        string
	ContainerID  string // containerd://ID
}

// id returns the id of the container that runs now.
func (s containerStatus) id() string {
	_, id, _ := strings.Cut(s.ContainerID, "://")
	return id
}

// workload is what runs on the node.
type workload struct {
	cronJob string         // name of the pod of a cron job
	volume  string         // that podDB has at /data
	pods    map[string]pod // by name, as of when they ran
}

const forever = "while true; do echo $(date) still here; sleep 1; done"

// createPods makes the pods that run on and on, with what owns them.
func createPods(t *testing.T, c *cluster) workload {
	t.Helper()
	c.create(t, `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "`+namespace+`"}}`, nil)
	c.create(t, `{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "`+namespace+`"}}`, nil)

	job := fmt.Sprintf("report-%d", time.Now().Unix()/60)
	w := workload{cronJob: job + "-8kq2z", volume: createClaim(t, c), pods: map[string]pod{}}
	web := c.createOwner(t, "apps/v1", "ReplicaSet", "web-7d4b9c6f5", c.createOwner(t, "apps/v1", "Deployment", "web", nil))
	db := c.createOwner(t, "apps/v1", "StatefulSet", "db", nil)
	w.create(t, c, podObject(podWeb, web, script("app", forever), script("sidecar", forever)))
	w.create(t, c, withClaim(podObject(podDB, db, script("postgres", forever))))
	w.create(t, c, podObject(w.cronJob, c.createOwner(t, "batch/v1", "Job", job, nil), script("report", forever)))
	return w
}

// createCrashing makes a pod whose container ends by itself some times, and waits until it runs on, as the others do.
func (w workload) createCrashing(t *testing.T, c *cluster) {
	t.Helper()
	w.create(t, c, podObject(podCrash, nil, script("app",
		fmt.Sprintf("n=$(cat /state/n || echo 0); echo $((n+1)) >/state/n; sleep 1; [ $n -ge %d ] || exit 1; %s", restarts, forever))))
	eventually(t, 90*time.Second, "all pods run", func() error {
		var list struct{ Items []pod }
		if err := c.get(&list, "pods", "-n", namespace); err != nil {
			return err
		}
		for _, p := range list.Items {
			w.pods[p.Metadata.Name] = p
			if p.Status.Phase != "Running" {
				return fmt.Errorf("%s is %s", p.Metadata.Name, p.Status.Phase)
			}
			for _, s := range p.Status.ContainerStatuses {
				if !s.Ready || p.Metadata.Name == podCrash && s.RestartCount < restarts {
					return fmt.Errorf("%s: %+v", p.Metadata.Name, s)
				}
			}
		}
		return nil
	})
	if got := w.status(podCrash, "app").RestartCount; got != restarts {
		t.Fatalf("the kubelet restarted %s %d times, want %d", podCrash, got, restarts)
	}
}

func (w workload) create(t *testing.T, c *cluster, o object) {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var made pod
	c.create(t, string(b), &made)
	w.pods[made.Metadata.Name] = made
}

// include returns what the receiver has to observe, by name and, as long as there is none, by the id of the pod: other
// containers of this host, which may have pods of its own, are not ours to look at.
func (w workload) include() []string {
	var ids []string
	for _, p := range w.pods {
		ids = append(ids, p.Metadata.UID)
	}
	return []string{"^/k8s/" + namespace + "/", "^/k8s-cronjob/" + namespace + "/", "^/k8s/" + deployed + "/",
		"^/k8s/(" + strings.Join(ids, "|") + ")/"}
}

// status returns what the API tells of a container.
func (w workload) status(podName, container string) containerStatus {
	for _, s := range w.pods[podName].Status.ContainerStatuses {
		if s.Name == container {
			return s
		}
	}
	return containerStatus{}
}

// createOwner makes an object that owns pods, and returns a reference to it. Nobody acts on it: there are no controllers.
func (c *cluster) createOwner(t *testing.T, version, kind, name string, owner object) object {
	t.Helper()
	labels := object{"app.kubernetes.io/name": name}
	template := object{"containers": []object{script("app", "true")}}
	spec := object{"template": object{"metadata": object{"labels": labels}, "spec": template}}
	switch kind {
	case "Job":
		template["restartPolicy"] = "Never"
	case "StatefulSet":
		spec["serviceName"] = name
		fallthrough
	default:
		spec["selector"] = object{"matchLabels": labels}
	}
	metadata := object{"name": name, "namespace": namespace}
	if owner != nil {
		metadata["ownerReferences"] = []object{owner}
	}
	b, err := json.Marshal(object{"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ Metadata struct{ UID string } }
	c.create(t, string(b), &made)
	return object{"apiVersion": version, "kind": kind, "name": name, "uid": made.Metadata.UID, "controller": true}
}

func podObject(name string, owner object, containers ...object) object {
	metadata := object{"name": name, "namespace": namespace, "labels": object{"app.kubernetes.io/name": "test-" + name}}
	if owner != nil {
		metadata["ownerReferences"] = []object{owner}
		if owner["kind"] == "ReplicaSet" {
			metadata["labels"].(object)["pod-template-hash"] = strings.Split(name, "-")[1]
		}
	}
	for _, c := range containers {
		c["volumeMounts"] = []object{{"name": "state", "mountPath": "/state"}}
	}
	return object{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": object{
		"nodeName": nodeName, "hostNetwork": true, "terminationGracePeriodSeconds": 1,
		"automountServiceAccountToken": false, "containers": containers,
		"volumes": []object{{"name": "state", "emptyDir": object{}}},
	}}
}

// withClaim gives the pod the claim, another user and a network of its own.
func withClaim(p object) object {
	spec := p["spec"].(object)
	spec["hostNetwork"] = false
	spec["securityContext"] = object{"runAsUser": 1000, "fsGroup": 1000}
	spec["volumes"] = append(spec["volumes"].([]object), object{"name": "data", "persistentVolumeClaim": object{"claimName": claim}})
	c := spec["containers"].([]object)[0]
	c["volumeMounts"] = append(c["volumeMounts"].([]object), object{"name": "data", "mountPath": "/data"})
	return p
}

func script(name, text string) object {
	return object{"name": name, "image": imageApp, "imagePullPolicy": "Never", "command": []string{"/bin/sh", "-c", text},
		"resources": object{"limits": object{"memory": "64Mi"}}}
}
