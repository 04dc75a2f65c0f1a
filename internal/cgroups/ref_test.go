// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	id1 = "8f3b6f1c2d4e5a60718293a4b5c6d7e8f90123456789abcdef0123456789abcd"
	id2 = "c0ffee00112233445566778899aabbccddeeff00112233445566778899aabbcc"
	id3 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

	podUID     = "0d6e7c2f-8f2a-4f0e-9a55-1b7d6a3e9c10"
	podEscaped = "0d6e7c2f_8f2a_4f0e_9a55_1b7d6a3e9c10"
	staticPod  = "3f1f0e6d1d8d1a7c2a8f9d0b5c4e3f21" // the hash of a manifest

	burstable = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podEscaped + ".slice"
	ecsTaskID = "9781c248e38742d0ae2aa3bd2ff1c9a4"
	allocID   = "5f2c1b6e-91a4-0d3f-7b55-0c1de94a6a52"
)

// refTest is one path. What belongs to the container stands before the bar, what is below it after.
type refTest struct {
	path string
	want Ref // without Path
	name string
}

func docker(id string) Ref { return Ref{Kind: Docker, ID: id, Runtime: "docker"} }

func kube(runtime, uid, id string) Ref {
	return Ref{Kind: Kubernetes, ID: id, Runtime: runtime, PodUID: uid}
}

func podman(id string) Ref { return Ref{Kind: Podman, ID: id, Runtime: "podman"} }

func unit(id string) Ref { return Ref{Kind: Systemd, ID: id} }

func ctr(namespace, id string) Ref {
	return Ref{Kind: Containerd, ID: id, Runtime: "containerd", Namespace: namespace}
}

func lxc(name string) Ref { return Ref{Kind: LXC, ID: name, Runtime: "lxc"} }

func other(namespace, id string) Ref { return Ref{Kind: Other, ID: id, Namespace: namespace} }

var refTests = []refTest{
	// docker
	{path: "/docker/" + id1, want: docker(id1), name: "/docker/" + id1},
	{path: "/docker/" + id1 + "|/anything/below", want: docker(id1), name: "/docker/" + id1},
	{path: "/system.slice/docker-" + id1 + ".scope", want: docker(id1), name: "/docker/" + id1},
	{path: "/system.slice/docker-" + id1 + ".scope|/init", want: docker(id1), name: "/docker/" + id1},
	{path: "/my-parent/" + id1, want: docker(id1), name: "/docker/" + id1},
	{path: "/a/b/" + id1 + "|/sub", want: docker(id1), name: "/docker/" + id1},
	{path: "/my.slice/my-parent.slice/docker-" + id1 + ".scope", want: docker(id1), name: "/docker/" + id1},
	{path: "/system/" + id1, want: docker(id1), name: "/docker/" + id1},
	{path: "/system.slice:docker:" + id1, want: docker(id1), name: "/docker/" + id1},
	// docker in docker, in LXC, in a unit, rootless
	{path: "/docker/" + id1 + "/docker/" + id2, want: docker(id2), name: "/docker/" + id2},
	{path: "/docker/" + id1 + "/system.slice/docker-" + id2 + ".scope|/x", want: docker(id2), name: "/docker/" + id2},
	{path: "/system.slice/docker.service/docker/" + id1, want: docker(id1), name: "/docker/" + id1},
	{path: "/lxc/web/ns/docker/" + id1, want: docker(id1), name: "/docker/" + id1},
	{path: "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + id1 + ".scope", want: docker(id1), name: "/docker/" + id1},
	{path: "/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service/docker/" + id1, want: docker(id1), name: "/docker/" + id1},
	{path: burstable + "/cri-containerd-" + id1 + ".scope/docker/" + id2, want: docker(id2), name: "/docker/" + id2},
	// systemd, plain cgroups and a Talos name in a container are the container's
	{path: "/docker/" + id1 + "|/system.slice/nginx.service", want: docker(id1), name: "/docker/" + id1},
	{path: "/docker/" + id1 + "|/init.scope", want: docker(id1), name: "/docker/" + id1},
	{path: "/docker/" + id1 + "|/init", want: docker(id1), name: "/docker/" + id1},
	{path: "/docker/" + id1 + "|/system/x", want: docker(id1), name: "/docker/" + id1},
	{path: "/docker/" + id1 + "|/libpod-conmon-" + id2 + ".scope", want: docker(id1), name: "/docker/" + id1},
	// seen from a cgroup namespace
	{path: "/../../docker/" + id1, want: docker(id1), name: "/docker/" + id1},
	{path: "/../docker-" + id1 + ".scope|/x", want: docker(id1), name: "/docker/" + id1},
	{path: "/../../../" + id1, want: docker(id1), name: "/docker/" + id1},

	// Kubernetes
	{path: "/kubepods/burstable/pod" + podUID + "/" + id1, want: kube("", podUID, id1), name: "/k8s/" + podUID + "/" + id1},
	{path: "/kubepods/pod" + podUID + "/" + id1 + "|/x", want: kube("", podUID, id1), name: "/k8s/" + podUID + "/" + id1},
	{path: "/kubepods.slice/besteffort/pod" + podUID + "/" + id1, want: kube("", podUID, id1), name: "/k8s/" + podUID + "/" + id1},
	{path: "/kubepods/besteffort/pod" + staticPod + "/" + id1, want: kube("", staticPod, id1), name: "/k8s/" + staticPod + "/" + id1},
	{path: "/kubepods/besteffort/pod" + podUID + "/crio-" + id1, want: kube("cri-o", podUID, id1), name: "/k8s/" + podUID + "/" + id1},
	{path: burstable + "/cri-containerd-" + id1 + ".scope", want: kube("containerd", podUID, id1), name: "/k8s/" + podUID + "/" + id1},
	{path: burstable + "/crio-" + id1 + ".scope|/container", want: kube("cri-o", podUID, id1), name: "/k8s/" + podUID + "/" + id1},
	{path: burstable + "/docker-" + id1 + ".scope", want: kube("docker", podUID, id1), name: "/k8s/" + podUID + "/" + id1},
	{
		path: "/kubepods.slice/kubepods-pod" + podEscaped + ".slice/cri-containerd-" + id1 + ".scope",
		want: kube("containerd", podUID, id1), name: "/k8s/" + podUID + "/" + id1,
	},
	{
		path: "/system.slice/containerd.service/kubepods-burstable-pod" + podEscaped + ".slice:cri-containerd:" + id1,
		want: kube("containerd", podUID, id1), name: "/k8s/" + podUID + "/" + id1,
	},
	{
		path: "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" +
			podEscaped + ".slice/cri-containerd-" + id1 + ".scope",
		want: kube("containerd", podUID, id1), name: "/k8s/" + podUID + "/" + id1,
	},
	{path: "/system.slice/crio-" + id1 + ".scope", want: kube("cri-o", "", id1), name: "/k8s/" + id1},
	// a kubelet in a container (kind)
	{path: "/docker/" + id1 + "/kubelet/kubepods/burstable/pod" + podUID + "/" + id2, want: kube("", podUID, id2), name: "/k8s/" + podUID + "/" + id2},
	{
		path: "/docker/" + id1 + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + podEscaped + ".slice/cri-containerd-" + id2 + ".scope",
		want: kube("containerd", podUID, id2), name: "/k8s/" + podUID + "/" + id2,
	},
	{
		path: "/system.slice/docker-" + id1 + ".scope/kubepods.slice/kubepods-pod" + podEscaped + ".slice/crio-" + id2 + ".scope",
		want: kube("cri-o", podUID, id2), name: "/k8s/" + podUID + "/" + id2,
	},
	{path: "/../../pod" + podUID + "/" + id1, want: docker(id1), name: "/docker/" + id1}, // the parent that tells is out of sight

	// Podman
	{path: "/libpod_parent/libpod-" + id1, want: podman(id1), name: "/podman/" + id1},
	{path: "/libpod_parent/" + id2 + "/libpod-" + id1, want: podman(id1), name: "/podman/" + id1},
	{path: "/machine.slice/libpod-" + id1 + ".scope|/container", want: podman(id1), name: "/podman/" + id1},
	{path: "/machine.slice/machine-libpod_pod_" + id2 + ".slice/libpod-" + id1 + ".scope", want: podman(id1), name: "/podman/" + id1},
	{path: "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope|/container", want: podman(id1), name: "/podman/" + id1},
	{path: "/system.slice/web.service/libpod-payload-" + id1, want: podman(id1), name: "/podman/" + id1},

	// containerd
	{path: "/default/web", want: ctr("default", "web"), name: "/containerd/default/web"},
	{path: "/default/" + id1, want: ctr("default", id1), name: "/containerd/default/" + id1},
	{path: "/k8s.io/x1|/sub", want: ctr("k8s.io", "x1"), name: "/containerd/k8s.io/x1"},
	{path: "/k8s.io/" + id1, want: ctr("k8s.io", id1), name: "/containerd/k8s.io/" + id1},
	{path: "/../../default/web", want: ctr("default", "web"), name: "/containerd/default/web"},
	{path: "/docker/" + id1 + "/default/web", want: ctr("default", "web"), name: "/containerd/default/web"},
	{path: "/system.slice/nerdctl-" + id1 + ".scope", want: ctr("", id1), name: "/containerd/" + id1},
	{path: "/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-" + id1 + ".scope", want: ctr("", id1), name: "/containerd/" + id1},

	// ECS
	{
		path: "/ecs/" + ecsTaskID + "/" + id1,
		want: Ref{Kind: ECS, ID: id1, Runtime: "docker", Namespace: ecsTaskID}, name: "/ecs/" + ecsTaskID + "/" + id1,
	},
	{
		path: "/ecs/cluster/" + ecsTaskID + "/" + id1 + "|/x",
		want: Ref{Kind: ECS, ID: id1, Runtime: "docker", Namespace: ecsTaskID}, name: "/ecs/" + ecsTaskID + "/" + id1,
	},
	{
		path: "/ecstasks.slice/ecstasks-" + ecsTaskID + ".slice/docker-" + id1 + ".scope",
		want: Ref{Kind: ECS, ID: id1, Runtime: "docker", Namespace: ecsTaskID}, name: "/ecs/" + ecsTaskID + "/" + id1,
	},
	{
		path: "/ecs/" + ecsTaskID + "/" + ecsTaskID + "-2531612879",
		want: Ref{Kind: ECS, ID: ecsTaskID + "-2531612879", Namespace: ecsTaskID}, name: "/ecs/" + ecsTaskID + "/" + ecsTaskID + "-2531612879",
	},

	// LXC, machines and others
	{path: "/lxc/web", want: lxc("web"), name: "/lxc/web"},
	{path: "/lxc/101|/ns/system.slice/nginx.service", want: lxc("101"), name: "/lxc/101"},
	{path: "/lxc.payload.web|/system.slice/nginx.service", want: lxc("web"), name: "/lxc/web"},
	{path: "/lxc.payload/web", want: lxc("web"), name: "/lxc/web"},
	{path: "/lxc.payload.outer/lxc.payload.inner|/init.scope", want: lxc("inner"), name: "/lxc/inner"},
	{path: "/lxc.payload.web|/lxc.monitor.x", want: lxc("web"), name: "/lxc/web"},
	{path: "/machine.slice/machine-deb.scope", want: Ref{Kind: Machine, ID: "deb"}, name: "/machine/deb"},
	{path: `/machine.slice/machine-qemu\x2d1\x2dvm.scope|/libvirt/vcpu0`, want: Ref{Kind: Machine, ID: "qemu-1-vm"}, name: "/machine/qemu-1-vm"},
	{
		path: "/machine.slice/systemd-nspawn@deb.service|/payload/system.slice/ssh.service",
		want: Ref{Kind: Machine, ID: "deb", Runtime: "systemd-nspawn"}, name: "/machine/deb",
	},
	{path: "/machine/vm1.libvirt-qemu|/emulator", want: Ref{Kind: Machine, ID: "vm1", Runtime: "libvirt"}, name: "/machine/vm1"},
	{path: "/machine.slice/machine-deb.scope/payload/docker/" + id1, want: docker(id1), name: "/docker/" + id1},
	{path: "/garden/4a8c1f2e-7d11|/x", want: other("garden", "4a8c1f2e-7d11"), name: "/garden/4a8c1f2e-7d11"},
	{path: "/garden/good/4a8c1f2e-7d11", want: other("garden", "4a8c1f2e-7d11"), name: "/garden/4a8c1f2e-7d11"},
	{path: "/system.slice/runc-bpm-garden.scope/garden/4a8c", want: other("garden", "4a8c"), name: "/garden/4a8c"},
	{
		path: "/actions_job/" + id1 + "|/x",
		want: Ref{Kind: Other, ID: id1, Runtime: "docker", Namespace: "actions_job"}, name: "/actions_job/" + id1,
	},
	{
		path: "/buildkit/y4kxwvv7w3u4jhg6a3lq7cz5z",
		want: Ref{Kind: Other, ID: "y4kxwvv7w3u4jhg6a3lq7cz5z", Runtime: "buildkit", Namespace: "buildkit"}, name: "/buildkit/y4kxwvv7w3u4jhg6a3lq7cz5z",
	},
	{
		path: "/docker/buildkit/y4kxwvv7w3u4jhg6a3lq7cz5z|/x",
		want: Ref{Kind: Other, ID: "y4kxwvv7w3u4jhg6a3lq7cz5z", Runtime: "buildkit", Namespace: "buildkit"}, name: "/buildkit/y4kxwvv7w3u4jhg6a3lq7cz5z",
	},
	{path: "/nomad.slice/" + allocID + ".redis.scope", want: other("nomad", allocID+".redis"), name: "/nomad/" + allocID + ".redis"},
	{path: "/nomad.slice/share.slice/" + allocID + ".redis.scope|/x", want: other("nomad", allocID+".redis"), name: "/nomad/" + allocID + ".redis"},
	{path: "/nomad.slice/docker-" + id1 + ".scope", want: docker(id1), name: "/docker/" + id1},
	{path: "/system.slice/foo-" + id1 + ".scope", want: other("foo", id1), name: "/foo/" + id1},

	// systemd
	{path: "/system.slice/nginx.service", want: unit("nginx.service"), name: "/system.slice/nginx.service"},
	{path: "/system.slice/nginx.service|/worker/1", want: unit("nginx.service"), name: "/system.slice/nginx.service"},
	{path: "/runtime.slice/containerd.service", want: unit("containerd.service"), name: "/runtime.slice/containerd.service"},
	{path: "/my-own.slice/my-own-sub.slice/app.service", want: unit("app.service"), name: "/my-own.slice/app.service"},
	{path: `/system.slice/system-postgresql.slice/postgresql@15\x2dmain.service`, want: unit("postgresql@15-main.service"), name: "/system.slice/postgresql@15-main.service"},
	{path: "/system.slice/system-postgresql.slice/postgresql@14-main.service", want: unit("postgresql@14-main.service"), name: "/system.slice/postgresql@14-main.service"},
	{path: "/system.slice/_cpu.service", want: unit("cpu.service"), name: "/system.slice/cpu.service"},
	{path: "/rootless.service", want: unit("rootless.service"), name: "/rootless.service"},
	{path: "/../system.slice/nginx.service", want: unit("nginx.service"), name: "/system.slice/nginx.service"},
	{path: "/unknown/system.slice/nginx.service", want: unit("nginx.service"), name: "/unknown/system.slice/nginx.service"},
	{path: "/system.slice/outer.service|/system.slice/inner.service", want: unit("outer.service"), name: "/system.slice/outer.service"},
	{path: "/user.slice/user-1000.slice/user@1000.service|/init.scope", want: unit("user@1000.service"), name: "/user.slice/user@1000.service"},
	{
		path: "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service",
		want: unit("syncthing.service"), name: "/user.slice/user@1000.service/syncthing.service",
	},
	{
		path: "/user.slice/user-1000.slice/user@1000.service/dbus.service|/x",
		want: unit("dbus.service"), name: "/user.slice/user@1000.service/dbus.service",
	},

	// Talos
	{path: "/init", want: Ref{Kind: Talos, ID: "init"}, name: "/talos/init"},
	{path: "/system/apid|/x", want: Ref{Kind: Talos, ID: "apid", Namespace: "system"}, name: "/talos/apid"},
	{path: "/podruntime/kubelet", want: Ref{Kind: Talos, ID: "kubelet", Namespace: "podruntime"}, name: "/talos/kubelet"},

	// none
	{path: "/"},
	{path: ""},
	{path: "docker/" + id1},
	{path: "/../.."},
	{path: "/init.scope"},
	{path: "/user.slice/user-1000.slice/session-3.scope"},
	{path: "/user.slice/user-0.slice"},
	{path: "/system.slice"},
	{path: "/system.slice/run-r5d2.scope"},
	{path: "/system.slice/.service"},
	{path: "/system"},
	{path: "/docker"},
	{path: "/docker/short"},
	{path: "/docker/" + strings.ToUpper(id1)},
	{path: "/docker/" + id1 + "0"},
	{path: "/docker/" + id1 + deleted},
	{path: "/docker/" + id1 + "/sub" + deleted},
	{path: "/system.slice/nginx.service" + deleted},
	{path: "/sandbox/4d389b702db8300c6febdcfb57c85792"},
	{path: "/a/b"},
	{path: "/default"},
	{path: "/default.slice/default/web"},
	{path: "/a/default/web"},
	{path: "/kubepods"},
	{path: "/kubepods/burstable/pod" + podUID},
	{path: "/kubepods/burstable/pod" + podUID + "/sub"},
	{path: burstable},
	{path: burstable + "/crio-conmon-" + id1 + ".scope"},
	{path: "/machine.slice/libpod-conmon-" + id1 + ".scope"},
	{path: "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-" + id1 + ".scope"},
	{path: "/libpod_parent/" + id1},
	{path: "/libpod_parent/conmon"},
	{path: "/machine.slice/machine-libpod_pod_" + id1 + ".slice"},
	{path: "/lxc.monitor.web"},
	{path: "/lxc.monitor/web"},
	{path: "/lxc"},
	{path: "/ecs/" + ecsTaskID},
	{path: "/garden/good"},
	{path: "/kata_overhead/" + id1},
	{path: "/foo/bar.service"},
}

func TestParsePath(t *testing.T) {
	for _, tt := range refTests {
		own, below, _ := strings.Cut(tt.path, "|")
		want := tt.want
		if want.Kind != None {
			want.Path = own
		}
		got := ParsePath(own + below)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParsePath(%q): (-want +got)\n%s", own+below, diff)
		}
		if got.Name() != tt.name {
			t.Errorf("ParsePath(%q).Name(): got %q, want %q", own+below, got.Name(), tt.name)
		}
	}
}

func TestParsePathDoesNotAllocate(t *testing.T) {
	path := "/docker/" + id1 + "/kubelet/kubepods/burstable/pod" + podUID + "/" + id2
	if n := testing.AllocsPerRun(100, func() { ParsePath(path) }); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func FuzzParsePath(f *testing.F) {
	for _, tt := range refTests {
		f.Add(strings.Replace(tt.path, "|", "", 1))
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := ParsePath(path)
		if r.Kind == None {
			if r != (Ref{}) || r.Name() != "" {
				t.Fatalf("%q: no container, but %+v named %q", path, r, r.Name())
			}
			return
		}
		if r.ID == "" || r.Path == "" || !strings.HasPrefix(path, r.Path) {
			t.Fatalf("%q: %+v has no id or a path that is no ancestor", path, r)
		}
		if rest := path[len(r.Path):]; rest != "" && rest[0] != '/' {
			t.Fatalf("%q: path %q ends within a component", path, r.Path)
		}
		if again := ParsePath(r.Path); again != r {
			t.Fatalf("%q: (-first +again)\n%s", path, cmp.Diff(r, again))
		}
		if name := r.Name(); !strings.HasPrefix(name, "/") {
			t.Fatalf("%q: name %q", path, name)
		}
	})
}

func BenchmarkParsePath(b *testing.B) {
	path := burstable + "/cri-containerd-" + id1 + ".scope"
	b.ReportAllocs()
	for b.Loop() {
		ParsePath(path)
	}
}
