// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
)

var testHost = node.Identity{
	MachineID:     "0123456789abcdef0123456789abcdef",
	SystemUUID:    "EC2F1A34-0001-0002-0003-A0B0C0D0E0F0",
	HostName:      "node-1",
	KernelVersion: "6.18.0",
}

const (
	idA       = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	idB       = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	podA      = "11111111-2222-3333-4444-555555555555"
	podSliceB = "kubepods-burstable-pod99999999_2222_3333_4444_555555555555.slice"
)

// at is the container that the inventory would make of a cgroup.
func at(path string) inventory.Container {
	ref := cgroups.ParsePath(path)
	return inventory.Container{Name: ref.Name(), Ref: ref}
}

func attributes(w *resourceWriter, c inventory.Container) map[string]any {
	return w.resource(&c).Attributes().AsRaw()
}

func TestResourceSemconv(t *testing.T) {
	w := newResourceWriter(createDefaultConfig().(*Config), testHost)
	for _, tt := range []struct {
		path string
		want map[string]any
	}{
		{"/docker/" + idA, map[string]any{"container.id": idA, "container.runtime.name": "docker"}},
		{"/kubepods/besteffort/pod" + podA + "/" + idA, map[string]any{"container.id": idA, "k8s.pod.uid": podA}},
		{"/kubepods.slice/kubepods-burstable.slice/" + podSliceB + "/crio-" + idB + ".scope", map[string]any{
			"container.id": idB, "container.runtime.name": "cri-o",
			"k8s.pod.uid": "99999999-2222-3333-4444-555555555555",
		}},
		{"/machine.slice/libpod-" + idA + ".scope", map[string]any{
			"container.id": idA, "container.runtime.name": "podman",
		}},
		{"/default/web", map[string]any{
			"container.id": "web", "container.runtime.name": "containerd", "containerd.namespace": "default",
		}},
		{"/ecs/0a1b2c3d/" + idA, map[string]any{
			"container.id": idA, "container.runtime.name": "docker", "aws.ecs.task.id": "0a1b2c3d",
		}},
		{"/lxc.payload.web", map[string]any{"container.name": "web", "container.runtime.name": "lxc"}},
		{"/machine.slice/machine-debian.scope", map[string]any{
			"container.name": "debian", "container.runtime.name": "machine",
		}},
		{"/podruntime/kubelet", map[string]any{"container.name": "kubelet", "container.runtime.name": "talos"}},
		{"/system.slice/nginx.service", map[string]any{
			"systemd.unit.name": "nginx.service", "systemd.slice": "system.slice",
		}},
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/web.service", map[string]any{
			"systemd.unit.name": "web.service", "systemd.slice": "user.slice/user@1000.service",
		}},
	} {
		t.Run(tt.path, func(t *testing.T) {
			tt.want["host.id"] = testHost.MachineID
			tt.want["host.name"] = testHost.HostName
			if diff := cmp.Diff(tt.want, attributes(w, at(tt.path))); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
		})
	}
}

// named is c as the inventory gives it when a runtime has told of it.
func named(c inventory.Container, name string, info inventory.Info) inventory.Container {
	c.Name, c.Info = name, &info
	c.InfoLabels.Image = info.Image
	return c
}

func TestResourceWithNames(t *testing.T) {
	pod := named(at("/kubepods/besteffort/pod"+podA+"/"+idA), "/k8s/shop/web-7d4b9c6f5-x2x4z/main", inventory.Info{
		Runtime: "containerd", Name: "main", AppID: "/k8s/shop/web", PodNamespace: "shop", PodName: "web-7d4b9c6f5-x2x4z", PodUID: podA,
		Image: "registry.example:5000/app:1.2", ImageName: "registry.example:5000/app", ImageTags: []string{"1.2"},
	})
	other := named(at("/default/x"), "/containerd/default/web", inventory.Info{
		Runtime: "containerd", Namespace: "default", Name: "web\xff", ImageName: "sha256:0",
	})
	swarm := named(at("/docker/"+idB), "/swarm/_/web/1", inventory.Info{Runtime: "docker", Name: "web.1.x"})
	for _, tt := range []struct {
		c       inventory.Container
		semconv map[string]any
		coroot  string
		app     string
	}{
		{pod, map[string]any{
			"container.id": idA, "container.name": "main", "container.runtime.name": "containerd",
			"container.image.name": "registry.example:5000/app", "container.image.tags": []any{"1.2"},
			"k8s.namespace.name": "shop", "k8s.pod.name": "web-7d4b9c6f5-x2x4z", "k8s.pod.uid": podA, "k8s.container.name": "main",
		}, "/k8s/shop/web-7d4b9c6f5-x2x4z/main", "/k8s/shop/web"},
		{other, map[string]any{
			"container.id": "x", "container.name": `web\xff`, "container.runtime.name": "containerd", "containerd.namespace": "default",
			"container.image.name": "sha256:0",
		}, "/containerd/default/web", ""},
		{swarm, map[string]any{"container.id": idB, "container.name": "web.1.x", "container.runtime.name": "docker"}, "/swarm/_/web/1", ""},
	} {
		cfg := createDefaultConfig().(*Config)
		tt.semconv["host.id"], tt.semconv["host.name"] = testHost.MachineID, testHost.HostName
		if diff := cmp.Diff(tt.semconv, attributes(newResourceWriter(cfg, testHost), tt.c)); diff != "" {
			t.Errorf("%s: semconv (-want +got):\n%s", tt.coroot, diff)
		}
		cfg.Identity = IdentityCoroot
		want := map[string]any{
			"container_id": tt.coroot, "app_id": tt.app, "machine_id": testHost.MachineID, "system_uuid": testHost.SystemUUID,
		}
		if diff := cmp.Diff(want, attributes(newResourceWriter(cfg, testHost), tt.c)); diff != "" {
			t.Errorf("%s: coroot (-want +got):\n%s", tt.coroot, diff)
		}
	}
}

func TestResourceSemconvHostAndCloud(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Cloud = CloudConfig{
		Provider: "aws", Region: "eu-central-1", AvailabilityZone: "eu-central-1a", AccountID: "123456789012",
		InstanceID: "i-0123456789abcdef0", InstanceType: "m7g.large",
	}
	want := map[string]any{
		"container.id": idA, "container.runtime.name": "docker",
		"host.id": "i-0123456789abcdef0", "host.name": "node-1", "host.type": "m7g.large",
		"cloud.provider": "aws", "cloud.region": "eu-central-1", "cloud.availability_zone": "eu-central-1a",
		"cloud.account.id": "123456789012", "cloud.platform": "aws_ec2",
	}
	if diff := cmp.Diff(want, attributes(newResourceWriter(cfg, testHost), at("/docker/"+idA))); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

func TestResourceCorootIsExactlyThatOfThePredecessor(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Identity = IdentityCoroot
	cfg.Cloud = CloudConfig{Provider: "aws", Region: "eu-central-1", InstanceType: "m7g.large"}
	want := map[string]any{
		"container_id": "/docker/" + idA,
		"app_id":       "",
		"machine_id":   testHost.MachineID,
		"system_uuid":  testHost.SystemUUID,
	}
	if diff := cmp.Diff(want, attributes(newResourceWriter(cfg, testHost), at("/docker/"+idA))); diff != "" {
		t.Errorf("region alone (-want +got):\n%s", diff)
	}
	cfg.Cloud.AvailabilityZone = "eu-central-1a"
	want["az"], want["region"] = "eu-central-1a", "eu-central-1"
	if diff := cmp.Diff(want, attributes(newResourceWriter(cfg, testHost), at("/docker/"+idA))); diff != "" {
		t.Errorf("both (-want +got):\n%s", diff)
	}
}

// Two series with the same labels spoil a Prometheus scrape, so any two names must differ in their attributes.
func TestResourcesOfTwoContainersDiffer(t *testing.T) {
	paths := []string{
		"/docker/" + idA, "/docker/" + idB, "/actions_job/" + idB[1:] + "c", "/default/x", "/k8s.io/x", "/moby/x",
		"/kubepods/pod" + podA + "/" + idA, "/kubepods/burstable/pod" + podA + "x/" + idB,
		"/machine.slice/libpod-" + idB[1:] + "d.scope", "/lxc/x", "/lxc.payload.y", "/lxc/x.service",
		"/machine.slice/machine-x.scope", "/machine.slice/machine-x.service.scope", "/podruntime/x", "/init",
		"/system/x.service", "/garden/x", "/garden/x.service", "/buildkit/x", "/buildkit/x.service",
		"/system.slice/x.service", "/runtime.slice/x.service", "/x.service", "/system.slice/postgresql@14-main.service",
		"/system.slice/postgresql@15-main.service", "/machine.slice/x.service",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
		"/user.slice/user-1001.slice/user@1001.service/app.slice/x.service",
		"/system.slice/bad\xff.service", "/system.slice/bad\xfe.service", "/system.slice/bad\ufffd.service",
	}
	for _, identity := range []IdentityMode{IdentitySemconv, IdentityCoroot} {
		cfg := createDefaultConfig().(*Config)
		cfg.Identity = identity
		w := newResourceWriter(cfg, testHost)
		names, seen := map[string]string{}, map[string]string{}
		for _, path := range paths {
			c := at(path)
			if c.Name == "" {
				t.Errorf("%s: no container", path)
				continue
			}
			if other, ok := names[c.Name]; ok {
				t.Errorf("%s and %s are both %s", path, other, c.Name)
			}
			names[c.Name] = path
			key := labels(attributes(w, c))
			if other, ok := seen[key]; ok {
				t.Errorf("%s: %q and %q are both %s", identity, path, other, key)
			}
			seen[key] = path
		}
	}
}

// labels writes attributes as the Prometheus exporter names them, in a fixed order.
func labels(attrs map[string]any) string {
	var b strings.Builder
	for _, k := range []string{
		"container.id", "container_id", "container.name", "container.runtime.name", "containerd.namespace",
		"aws.ecs.task.id", "k8s.pod.uid", "systemd.unit.name", "systemd.slice",
	} {
		if v, ok := attrs[k].(string); ok {
			b.WriteString(strings.ReplaceAll(k, ".", "_") + "=" + v + " ")
		}
	}
	return b.String()
}

func TestResourceIsUTF8(t *testing.T) {
	host := testHost
	host.HostName = "bad\xffhost"
	w := newResourceWriter(createDefaultConfig().(*Config), host)
	attrs := attributes(w, at("/system.slice/bad\xff\xc3.service"))
	for k, v := range attrs {
		if s := v.(string); !utf8.ValidString(s) {
			t.Errorf("%s: %q is not UTF-8", k, s)
		}
	}
	if got, want := attrs["systemd.unit.name"], `bad\xff\xc3.service`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
