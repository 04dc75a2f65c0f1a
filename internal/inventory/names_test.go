// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/runtimes"
)

const (
	namedID     = "8f3b6f1c2d4e5a60718293a4b5c6d7e8f90123456789abcdef0123456789abcd"
	namedPodUID = "0d6e7c2f-8f2a-4f0e-9a55-1b7d6a3e9c10"
)

// namesNow is 29,700,000 minutes after 1970.
var namesNow = time.Unix(29_700_000*60, 0)

func labelled(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func inPod(namespace, pod, container string) *runtimes.Info {
	return &runtimes.Info{Runtime: "containerd", Namespace: "k8s.io", Name: container, Pod: runtimes.Pod{Namespace: namespace, Name: pod, UID: namedPodUID}}
}

func inSwarm(task, stack, service string) *runtimes.Info {
	return &runtimes.Info{Runtime: "docker", Name: task, Labels: labelled("com.docker.swarm.task.name", task,
		"com.docker.stack.namespace", stack, "com.docker.swarm.service.name", service)}
}

func inNomad(namespace, job, group, alloc, task string) *runtimes.Info {
	return &runtimes.Info{Runtime: "docker", Name: task + "-" + alloc, Env: labelled("NOMAD_NAMESPACE", namespace, "NOMAD_JOB_NAME", job,
		"NOMAD_GROUP_NAME", group, "NOMAD_ALLOC_ID", alloc, "NOMAD_TASK_NAME", task)}
}

func inECS(family, container string) *runtimes.Info {
	return &runtimes.Info{Runtime: "docker", Name: "ecs-" + family + "-7-" + container + "-a2b3c4",
		Labels: labelled("com.amazonaws.ecs.task-definition-family", family, "com.amazonaws.ecs.container-name", container)}
}

func TestContainersAreNamedAsCorootNamesThem(t *testing.T) {
	docker := cgroups.Ref{Kind: cgroups.Docker, ID: namedID, Runtime: "docker"}
	kube := cgroups.Ref{Kind: cgroups.Kubernetes, ID: namedID, Runtime: "containerd", PodUID: namedPodUID}
	podman := cgroups.Ref{Kind: cgroups.Podman, ID: namedID, Runtime: "podman"}
	ctr := cgroups.Ref{Kind: cgroups.Containerd, ID: "x1", Runtime: "containerd", Namespace: "default"}
	nerdctl := cgroups.Ref{Kind: cgroups.Containerd, ID: namedID, Runtime: "containerd"}
	ecs := cgroups.Ref{Kind: cgroups.ECS, ID: namedID, Runtime: "docker", Namespace: "9781c248e38742d0ae2aa3bd2ff1c9a4"}
	nomad := cgroups.Ref{Kind: cgroups.Other, ID: "5f2c1b6e-91a4-0d3f-7b55-0c1de94a6a52.web", Namespace: "nomad"}
	actions := cgroups.Ref{Kind: cgroups.Other, ID: namedID, Runtime: "docker", Namespace: "actions_job"}
	nginx := cgroups.Ref{Kind: cgroups.Systemd, ID: "nginx.service", Path: "/system.slice/nginx.service"}

	sandbox := inPod("shop", "web-6d4cf56db6-x7k2p", "")
	sandbox.Sandbox, sandbox.VM = true, true
	cronSandbox := inPod("shop", "backup-29699990-x7k2p", "")
	cronSandbox.Sandbox, cronSandbox.VM = true, true
	inSandbox := inPod("shop", "web-6d4cf56db6-x7k2p", "app")
	inSandbox.VM = true

	for _, tt := range []struct {
		name string
		ref  cgroups.Ref
		info *runtimes.Info
		want string
	}{
		{"nobody has told", docker, nil, "/docker/" + namedID},
		{"nothing told", docker, &runtimes.Info{}, "/docker/" + namedID},
		{"no container", cgroups.Ref{}, &runtimes.Info{Runtime: "docker", Name: "web"}, ""},

		{"deployment", kube, inPod("shop", "web-6d4cf56db6-x7k2p", "app"), "/k8s/shop/web-6d4cf56db6-x7k2p/app"},
		{"static pod", kube, inPod("kube-system", "kube-apiserver-cp1", "kube-apiserver"), "/k8s/kube-system/kube-apiserver-cp1/kube-apiserver"},
		{"pod by dockerd", docker, &runtimes.Info{Runtime: "docker", Name: "app", Pod: runtimes.Pod{Namespace: "shop", Name: "web-0"}}, "/k8s/shop/web-0/app"},
		{"pod without namespace", kube, inPod("", "web-0", "app"), "/k8s/" + namedPodUID + "/" + namedID},
		{"pod without name", kube, inPod("shop", "", "app"), "/k8s/" + namedPodUID + "/" + namedID},
		{"container of a pod without name", kube, inPod("shop", "web-0", ""), "/k8s/" + namedPodUID + "/" + namedID},
		{"in kubepods, by hand", kube, &runtimes.Info{Runtime: "docker", Name: "stray"}, "/k8s/" + namedPodUID + "/" + namedID},
		{"sandbox of gVisor", kube, sandbox, "/k8s/shop/web-6d4cf56db6-x7k2p/sandbox"},
		{"container in gVisor", kube, inSandbox, "/k8s/shop/web-6d4cf56db6-x7k2p/app"},
		{"cron job in gVisor", kube, cronSandbox, "/k8s-cronjob/shop/backup/sandbox"},

		{"cron job", kube, inPod("shop", "backup-29699990-x7k2p", "dump"), "/k8s-cronjob/shop/backup/dump"},
		{"cron job with dashes", kube, inPod("shop", "db-backup-29699990-x7k2p", "dump"), "/k8s-cronjob/shop/db-backup/dump"},
		{"cron job a week ago", kube, inPod("shop", "backup-29689920-x7k2p", "dump"), "/k8s-cronjob/shop/backup/dump"},
		{"more than a week ago", kube, inPod("shop", "backup-29689919-x7k2p", "dump"), "/k8s/shop/backup-29689919-x7k2p/dump"},
		{"in a week", kube, inPod("shop", "backup-29710080-x7k2p", "dump"), "/k8s-cronjob/shop/backup/dump"},
		{"in more than a week", kube, inPod("shop", "backup-29710081-x7k2p", "dump"), "/k8s/shop/backup-29710081-x7k2p/dump"},
		{"deployment with eight digits", kube, inPod("shop", "web-45678999-x7k2p", "app"), "/k8s/shop/web-45678999-x7k2p/app"},
		{"not a random end", kube, inPod("shop", "backup-29699990-hello", "dump"), "/k8s/shop/backup-29699990-hello/dump"},
		{"job without name", kube, inPod("shop", "-29699990-x7k2p", "dump"), "/k8s/shop/-29699990-x7k2p/dump"},

		{"stack", docker, inSwarm("shop_web.2.knk1rz1szius7pvyznn9zolld", "shop", "shop_web"), "/swarm/shop/web/2"},
		{"service", docker, inSwarm("redis.1.6qgb0pna6iphr7c4ijzuiihaa", "", "redis"), "/swarm/_/redis/1"},
		{"global service", docker, inSwarm("shop_agent.9opfw0jjrrkehjh5mjo34ov36.mdvtq5wrx6rdx2pzpv0nryy6i", "shop", "shop_agent"), "/swarm/shop/agent/9opfw0jjrrkehjh5mjo34ov36"},
		{"service in a stack of another name", docker, inSwarm("web.1.knk1rz1szius7pvyznn9zolld", "shop", "web"), "/swarm/shop/web/1"},
		{"service with the name of its stack", docker, inSwarm("shop_.1.knk1rz1szius7pvyznn9zolld", "shop", "shop_"), "/docker/shop_.1.knk1rz1szius7pvyznn9zolld"},
		{"task without slot", docker, inSwarm("web", "shop", "shop_web"), "/docker/web"},
		{"task with an empty slot", docker, inSwarm("web..knk", "shop", "shop_web"), "/docker/web..knk"},
		{"task without service", docker, inSwarm("web.1.knk", "shop", ""), "/docker/web.1.knk"},

		{"nomad", docker, inNomad("default", "shop", "frontend", "5f2c1b6e-91a4-0d3f-7b55-0c1de94a6a52", "web"), "/nomad/default/shop/frontend/5f2c1b6e-91a4-0d3f-7b55-0c1de94a6a52/web"},
		{"nomad by its cgroup", nomad, inNomad("default", "shop", "frontend", "5f2c1b6e", "web"), "/nomad/default/shop/frontend/5f2c1b6e/web"},
		{"nomad periodic", docker, inNomad("default", "backup/periodic-1782000000", "db", "5f2c1b6e", "dump"), "/nomad/default/backup/db/5f2c1b6e/dump"},
		{"nomad dispatched", docker, inNomad("default", "encode/dispatch-1782000000-cd0a0b2f", "g", "5f2c1b6e", "t"), "/nomad/default/encode/g/5f2c1b6e/t"},
		{"nomad periodic and dispatched", docker, inNomad("default", "e/dispatch-1782000000-cd0a0b2f/periodic-1782000000", "g", "5f2c1b6e", "t"), "/nomad/default/e/g/5f2c1b6e/t"},
		{"nomad without group", docker, inNomad("default", "shop", "", "5f2c1b6e", "web"), "/docker/web-5f2c1b6e"},

		{"ecs", ecs, inECS("shop", "web"), "/ecs/shop/web"},
		{"ecs by labels alone", docker, inECS("shop", "web"), "/ecs/shop/web"},
		{"ecs without labels", ecs, &runtimes.Info{Runtime: "docker", Name: "ecs-shop-7-web-a2b3c4"}, "/docker/ecs-shop-7-web-a2b3c4"},
		{"ecs of which nobody has told", ecs, nil, "/ecs/9781c248e38742d0ae2aa3bd2ff1c9a4/" + namedID},

		{"docker", docker, &runtimes.Info{Runtime: "docker", Name: "shop-web-1"}, "/docker/shop-web-1"},
		{"docker, known by containerd alone", docker, &runtimes.Info{Runtime: "containerd", Namespace: "moby", Name: namedID}, "/docker/" + namedID},
		{"docker, by a runner", actions, &runtimes.Info{Runtime: "docker", Name: "job_7"}, "/docker/job_7"},
		{"podman", podman, &runtimes.Info{Runtime: "podman", Name: "brave_curie"}, "/podman/brave_curie"},
		{"podman without name", podman, &runtimes.Info{Runtime: "podman"}, "/podman/" + namedID},
		{"podman under a parent of its own", docker, &runtimes.Info{Runtime: "podman", Name: "brave_curie"}, "/podman/brave_curie"},
		{"nerdctl", nerdctl, &runtimes.Info{Runtime: "containerd", Namespace: "default", Name: "web"}, "/containerd/default/web"},
		{"ctr", ctr, &runtimes.Info{Runtime: "containerd", Namespace: "default"}, "/containerd/default/x1"},
		{"ctr under a parent of its own", docker, &runtimes.Info{Runtime: "containerd", Namespace: "build"}, "/containerd/build/" + namedID},
		{"cri-o", kube, &runtimes.Info{Runtime: "cri-o", Name: "app", Pod: runtimes.Pod{Namespace: "shop", Name: "web-0"}}, "/k8s/shop/web-0/app"},
		{"runtime that has no rule", kube, &runtimes.Info{Runtime: "cri-o", Name: "app"}, "/k8s/" + namedPodUID + "/" + namedID},

		{"unit", nginx, &runtimes.Info{Runtime: "systemd", Name: "nginx.service"}, "/system.slice/nginx.service"},
		{"unit with labels", nginx, inSwarm("a.1.b", "", "a"), "/system.slice/nginx.service"},
		{"lxc", cgroups.Ref{Kind: cgroups.LXC, ID: "db"}, &runtimes.Info{Runtime: "docker", Name: "web"}, "/lxc/db"},

		{"slash", docker, &runtimes.Info{Runtime: "docker", Name: "a/b"}, "/docker/a%2Fb"},
		{"percent", docker, &runtimes.Info{Runtime: "docker", Name: "a%2Fb"}, "/docker/a%252Fb"},
		{"slashes in a job", docker, inNomad("default", "team/shop", "g", "5f2c1b6e", "t"), "/nomad/default/team%2Fshop/g/5f2c1b6e/t"},
		{"not UTF-8", docker, &runtimes.Info{Runtime: "docker", Name: "a\xffb"}, "/docker/a\xffb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, pathForm(tt.ref, tt.info, namesNow)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestApplicationsAreNamedByTheirPods(t *testing.T) {
	kube := cgroups.Ref{Kind: cgroups.Kubernetes, ID: namedID, PodUID: namedPodUID}
	for pod, want := range map[string]string{
		"web-6d4cf56db6-x7k2p":       "/k8s/shop/web",
		"web-api-6d4cf56db6-x7k2p":   "/k8s/shop/web-api",
		"web-b-x7k2p":                "/k8s/shop/web",
		"web-1842096307-x7k2p":       "/k8s/shop/web", // Kubernetes before 1.9
		"web-18420963071-x7k2p":      "/k8s/shop/web-18420963071",
		"node-exporter-x7k2p":        "/k8s/shop/node-exporter",
		"csi-nfs-x7k2p":              "/k8s/shop/csi-nfs",
		"migrate-x7k2p":              "/k8s/shop/migrate",
		"indexed-3-x7k2p":            "/k8s/shop/indexed",
		"postgres-0":                 "/k8s/shop/postgres",
		"postgres-main-12":           "/k8s/shop/postgres-main",
		"etcd-ip-10-0-0-12":          "/k8s/shop/etcd-ip-10-0-0",
		"backup-29699990-x7k2p":      "/k8s-cronjob/shop/backup",
		"backup-29600000-x7k2p":      "/k8s/shop/backup",
		"debug":                      "",
		"kube-apiserver-cp1":         "",
		"web-6d4cf56db6-hello":       "",
		"web-6d4cf56db6-x7k2":        "",
		"-x7k2p":                     "",
		"x7k2p":                      "",
		"-0":                         "",
		"":                           "",
		"web.example.com-6d4c-x7k2p": "/k8s/shop/web.example.com",
	} {
		if diff := cmp.Diff(want, appID(kube, inPod("shop", pod, "app"), namesNow)); diff != "" {
			t.Errorf("%s: %s", pod, diff)
		}
	}
	docker := cgroups.Ref{Kind: cgroups.Docker, ID: namedID}
	for name, info := range map[string]*runtimes.Info{
		"docker": {Runtime: "docker", Name: "web-6d4cf56db6-x7k2p"}, "no namespace": inPod("", "web-0", "app"), "nothing": nil,
	} {
		if got := appID(docker, info, namesNow); got != "" {
			t.Errorf("%s: got %s, want none", name, got)
		}
	}
}

func TestContainersThatOnlyHoldNamespacesAreIgnored(t *testing.T) {
	kube := cgroups.Ref{Kind: cgroups.Kubernetes, ID: namedID, PodUID: namedPodUID}
	pause, vm, inVM := inPod("shop", "web-0", ""), inPod("shop", "web-0", ""), inPod("shop", "web-0", "app")
	pause.Sandbox, vm.Sandbox, vm.VM, inVM.VM = true, true, true, true
	for _, tt := range []struct {
		name string
		info *runtimes.Info
		want bool
	}{
		{"nobody has told", nil, false},
		{"container", inPod("shop", "web-0", "app"), false},
		{"sandbox", pause, true},
		{"sandbox of gVisor", vm, false},
		{"container in gVisor", inVM, false},
		{"container without name", inPod("shop", "web-0", ""), true},
		{"pause of dockershim", inPod("shop", "web-0", "POD"), true},
		{"docker", &runtimes.Info{Runtime: "docker", Name: "POD"}, false},
		{"infra of podman", &runtimes.Info{Runtime: "podman", Name: "5f2c1b6e91a4-infra", Sandbox: true}, true},
		{"ecs", inECS("shop", "web"), false},
		{"pause of ecs", inECS("shop", "~internal~ecs~pause"), true},
		{"pause of ecs service connect", inECS("shop", "~internal~ecs~pause-web"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := isIgnored(kube, tt.info); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestLogsCanBeDisabled(t *testing.T) {
	for _, tt := range []struct {
		name string
		info *runtimes.Info
		want bool
	}{
		{"nobody has told", nil, false},
		{"nothing said", &runtimes.Info{}, false},
		{"label", &runtimes.Info{Labels: labelled("EBPF_CONTAINER_LOGS", "disabled")}, true},
		{"annotation", &runtimes.Info{Annotations: labelled("COROOT_LOG_MONITORING", "Disabled")}, true},
		{"environment", &runtimes.Info{Env: labelled("COROOT_LOG_MONITORING", " DISABLED\n")}, true},
		{"off", &runtimes.Info{Env: labelled("EBPF_CONTAINER_LOGS", "off")}, true},
		{"false", &runtimes.Info{Env: labelled("EBPF_CONTAINER_LOGS", "False")}, true},
		{"enabled", &runtimes.Info{Env: labelled("EBPF_CONTAINER_LOGS", "enabled")}, false},
		{"empty", &runtimes.Info{Env: labelled("EBPF_CONTAINER_LOGS", "")}, false},
		{"one says no", &runtimes.Info{
			Labels: labelled("EBPF_CONTAINER_LOGS", "enabled"), Annotations: labelled("COROOT_LOG_MONITORING", "disabled"),
		}, true},
		{"another name", &runtimes.Info{Labels: labelled("LOGS", "disabled")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := logsDisabled(tt.info); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// FuzzNames checks that a name has as many parts as its family has, and that no part is lost.
func FuzzNames(f *testing.F) {
	f.Add(uint8(cgroups.Kubernetes), "containerd", "k8s.io", "app", "shop", "web-6d4cf56db6-x7k2p", "")
	f.Add(uint8(cgroups.Docker), "docker", "", "a/b%", "", "", "shop_web.2.knk")
	f.Add(uint8(cgroups.Containerd), "containerd", "de/fault", "\xff", "", "", "")
	f.Add(uint8(cgroups.Kubernetes), "cri-o", "", "dump", "shop", "backup-29699990-x7k2p", "..")
	f.Fuzz(func(t *testing.T, kind uint8, runtime, namespace, name, podNamespace, pod, task string) {
		ref := cgroups.Ref{Kind: cgroups.Kind(kind % (uint8(cgroups.Other) + 1)), ID: namedID, Path: "/system.slice/a.service"}
		info := &runtimes.Info{
			Runtime: runtime, Namespace: namespace, Name: name, Pod: runtimes.Pod{Namespace: podNamespace, Name: pod},
			Labels: labelled("com.docker.swarm.task.name", task, "com.docker.swarm.service.name", name, "com.docker.stack.namespace", namespace),
		}
		isIgnored(ref, info)
		got, app := pathForm(ref, info, namesNow), appID(ref, info, namesNow)
		if ref.Kind == cgroups.None {
			if got != "" || app != "" {
				t.Fatalf("got %q and %q for no container", got, app)
			}
			return
		}
		if !strings.HasPrefix(got, "/") || app != "" && !strings.HasPrefix(app, "/k8s") {
			t.Fatalf("got %q and %q", got, app)
		}
		if app != "" && strings.Count(app, "/") != 3 {
			t.Fatalf("%q has not two parts", app)
		}
		parts := strings.Split(got[1:], "/")
		for i, part := range parts {
			part = strings.ReplaceAll(part, "%2F", "/")
			parts[i] = strings.ReplaceAll(part, "%25", "%")
		}
		var want []string
		switch {
		case got == ref.Name():
			return
		case parts[0] == "k8s":
			want = []string{"k8s", podNamespace, pod, name}
		case parts[0] == "k8s-cronjob":
			want = []string{"k8s-cronjob", podNamespace, cronJob(pod, namesNow), name}
		case parts[0] == "swarm":
			if len(parts) != 4 {
				t.Fatalf("%q has not three parts", got)
			}
			return
		case parts[0] == "containerd":
			want = []string{"containerd", namespace, name}
			if name == "" {
				want[2] = namedID
			}
		default:
			want = []string{runtime, name}
		}
		if diff := cmp.Diff(want, parts); diff != "" {
			t.Fatalf("%q: %s", got, diff)
		}
	})
}
