// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// running is a container that runs, as both identities have to name it.
type running struct {
	pod, container string
	containerID    string // in identity coroot
	appID          string
}

func (w workload) running() []running {
	return []running{
		{podWeb, "app", "/k8s/shop/" + podWeb + "/app", "/k8s/shop/web"},
		{podWeb, "sidecar", "/k8s/shop/" + podWeb + "/sidecar", "/k8s/shop/web"},
		{podDB, "postgres", "/k8s/shop/db-0/postgres", "/k8s/shop/db"},
		{podCrash, "app", "/k8s/shop/crash/app", ""},
		{w.cronJob, "report", "/k8s-cronjob/shop/report/report", "/k8s-cronjob/shop/report"},
	}
}

const eachContainer = "container.resources.cpu.usage"

// checkSemconv fails the test unless each container has all its names, and is there once.
func checkSemconv(t *testing.T, col *collector, w workload) {
	eventually(t, 15*time.Second, "containers are named", func() error {
		var errs []error
		var want, got []string
		for _, r := range w.running() {
			id := w.status(r.pod, r.container).id()
			want = append(want, id)
			p, err := col.one("semconv", eachContainer, map[string]any{"container.id": id})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			names := map[string]any{
				"k8s.namespace.name": namespace, "k8s.pod.name": r.pod, "k8s.pod.uid": w.pods[r.pod].Metadata.UID,
				"k8s.container.name": r.container, "container.name": r.container, "container.runtime.name": "containerd",
				"container.image.name": "registry.example/team/app", "container.image.tags": []any{"1.2"},
			}
			told := map[string]any{}
			for name := range names {
				told[name] = p.resource[name]
			}
			if diff := cmp.Diff(names, told); diff != "" {
				errs = append(errs, fmt.Errorf("%s (-want +got):\n%s", r.containerID, diff))
			}
		}
		all, err := col.points("semconv")
		for _, p := range all {
			if p.metric == eachContainer {
				id, _ := p.resource["container.id"].(string)
				got = append(got, id)
			}
		}
		return errors.Join(append(errs, err, sameSet(want, got))...)
	})
}

// checkCoroot likewise.
func checkCoroot(t *testing.T, col *collector, w workload) {
	eventually(t, 15*time.Second, "containers are named", func() error {
		var errs []error
		var want, got []string
		for _, r := range w.running() {
			want = append(want, r.containerID+" "+r.appID)
			p, err := col.one("coroot", "container.info", map[string]any{"container_id": r.containerID})
			if err == nil && !has(p.attributes, map[string]any{"image": imageApp}) {
				err = fmt.Errorf("container.info of %s: %v", r.containerID, p.attributes)
			}
			errs = append(errs, err)
		}
		all, err := col.points("coroot")
		for _, p := range all {
			if p.metric == eachContainer {
				got = append(got, fmt.Sprint(p.resource["container_id"], " ", p.resource["app_id"]))
			}
		}
		return errors.Join(append(errs, err, sameSet(want, got))...)
	})
}

// checkNoOthers fails the test unless no container was ever given under another name: not by its id before the runtime told
// its name, and no pause container.
func checkNoOthers(t *testing.T, col *collector, w workload) {
	for identity, key := range map[string]string{"semconv": "k8s.container.name", "coroot": "container_id"} {
		want := map[any]bool{}
		for _, r := range w.running() {
			want[map[string]string{"semconv": r.container, "coroot": r.containerID}[identity]] = true
		}
		all, err := col.read(identity)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if !want[p.resource[key]] && !strings.HasPrefix(p.metric, "node.") {
				t.Errorf("identity %s: %v", identity, p.resource)
				want[p.resource[key]] = true // once is enough
			}
		}
	}
}

// sameSet returns an error unless both lists have the same elements, pause containers for one thing are not there.
func sameSet(want, got []string) error {
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("containers (-want +got):\n%s", diff)
	}
	return nil
}

// checkAttributes fails the test unless the k8s_attributes processor adds what only the API server knows.
func checkAttributes(t *testing.T, col *collector, w workload) {
	for podName, names := range map[string]map[string]any{
		podWeb:    {"k8s.deployment.name": "web"},
		podDB:     {"k8s.statefulset.name": "db"},
		podCrash:  {},
		w.cronJob: {"k8s.cronjob.name": "report"},
	} {
		names["k8s.node.name"] = nodeName
		names["k8s.pod.label.app.kubernetes.io/name"] = "test-" + podName
		eventually(t, 10*time.Second, podName+" has attributes of the API server", func() error {
			all, err := col.points("semconv")
			if err != nil {
				return err
			}
			found := false
			for _, p := range all {
				if p.metric == eachContainer && p.resource["k8s.pod.uid"] == w.pods[podName].Metadata.UID {
					found = true
					if !has(p.resource, names) {
						return fmt.Errorf("got %v, want %v in it", p.resource, names)
					}
				}
			}
			if !found {
				return fmt.Errorf("no point of %s", podName)
			}
			return nil
		})
	}
}

// checkRestarts fails the test unless restarts are those that the kubelet counts.
func checkRestarts(t *testing.T, col *collector, w workload) {
	for _, r := range w.running() {
		s := w.status(r.pod, r.container)
		for identity, resource := range map[string]map[string]any{
			"coroot": {"container_id": r.containerID}, "semconv": {"container.id": s.id()},
		} {
			eventually(t, 10*time.Second, r.containerID+" has its restarts in "+identity, func() error {
				p, err := col.one(identity, "container.restarts", resource)
				if err == nil && p.value != float64(s.RestartCount) {
					err = fmt.Errorf("got %v restarts, want %d", p.value, s.RestartCount)
				}
				return err
			})
		}
	}
}

// checkRecords fails the test unless there is a record for each exit of the container that ends by itself.
func checkRecords(t *testing.T, col *collector, w workload) {
	for identity, resource := range map[string]map[string]any{
		"semconv": {"k8s.pod.uid": w.pods[podCrash].Metadata.UID, "k8s.node.name": nodeName},
		"coroot":  {"container_id": "/k8s/shop/crash/app"},
	} {
		eventually(t, 10*time.Second, "records in "+identity, func() error {
			all, err := col.records(identity)
			if err != nil {
				return err
			}
			exits := 0
			for _, r := range all {
				if r.event == "container.exit" && has(r.resource, resource) &&
					has(r.attributes, map[string]any{"container.exit.reason": "error", "process.exit.code": 1}) {
					exits++
				}
			}
			if exits != restarts {
				return fmt.Errorf("%d records of exits, want %d; there are %s", exits, restarts, lines(all))
			}
			return nil
		})
	}
}

// lines writes each element on a line.
func lines[T any](list []T) string {
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "\n%+v", e)
	}
	return b.String()
}

// checkLogs fails the test unless what each container writes to its output is counted, by one pattern.
func checkLogs(t *testing.T, col *collector, w workload) {
	eventually(t, 15*time.Second, "logs are counted", func() error {
		all, err := col.points("coroot")
		if err != nil {
			return err
		}
		said := map[any][]any{}
		for _, p := range all {
			sample, _ := p.attributes["sample"].(string)
			if p.metric == "container.log.messages" && p.attributes["source"] == "stdout/stderr" && strings.HasSuffix(sample, "still here") {
				id := p.resource["container_id"]
				said[id] = append(said[id], sample)
			}
		}
		var errs []error
		for _, r := range w.running() {
			if n := len(said[r.containerID]); n != 1 {
				errs = append(errs, fmt.Errorf("%s: %d patterns: %q", r.containerID, n, said[r.containerID]))
			}
		}
		return errors.Join(errs...)
	})
}
