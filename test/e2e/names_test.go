// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// nameScene is every runtime that there is here, with containers that have names, and a collector that asks them all.
type nameScene struct {
	docker     *docker
	podman     *podman // nil where there is none
	containerd *containerd
	sockets    map[string]string // of all these
	collector  *collector
	watch      *watch
	prometheus *prometheus
	all        []*named
	renamed    []container // what has got another name
}

// named is a container that a runtime knows by name.
type named struct {
	runtime string
	who     container
	idForm  string // path form until a name is known
	image   string
	begin   func()
	pid     func() string // once it has begun
	rename  func(to string)
}

const (
	namesInterval = time.Second
	foreignParent = "/e2e-parent" // of a Docker container
)

// ticking uses a little CPU all the time.
var ticking = script("while /busybox sleep 0.1; do :; done")

// TestNames finds containers of each runtime under the names that they have there, and under no others at any time.
func TestNames(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "iptables", "dockerd", "containerd", "docker", "ctr", "runc", "busybox", "prometheus")
	keepDelayAccounting(t)
	ctx := testContext(t)
	s := playNames(ctx, t)
	t.Run("podman", func(t *testing.T) { requireRoot(t, "podman") }) // says so if it is missing
	t.Run("labels", func(t *testing.T) { s.checkLabels(ctx, t) })
	t.Run("rename", func(t *testing.T) { s.checkRename(ctx, t) })
	t.Run("name used again", func(t *testing.T) { s.checkReuse(ctx, t) })
	s.checkNoIDs(t)
	s.prometheus.checkScrapes(ctx, t)
	s.prometheus.checkCounters(ctx, t)
	s.collector.wantNoLoss(ctx, t, "read_errors", "events_lost")
	for runtime := range s.sockets {
		if err := s.collector.wantRuntime(ctx, runtime, true, 0, 0); err != nil {
			t.Error(err)
		}
	}
}

// playNames makes the containers, starts the collector and then the containers.
func playNames(ctx context.Context, t *testing.T) *nameScene {
	t.Helper()
	binary := collectorBinary(ctx, t)
	load := buildLoad(ctx, t)
	ns := makeNetns(ctx, t)
	for _, parent := range []string{foreignParent, podOfDocker.parent(), podOfCRI.parent()} {
		removeNewParents(t, parent+"/id") // after the daemons have removed the containers
	}
	s := &nameScene{docker: startDocker(ctx, t, ns), containerd: startContainerd(ctx, t, ns)}
	s.sockets = map[string]string{"docker": s.docker.socket, "containerd": s.containerd.socket, "cri": s.containerd.socket}
	config := collectorConfig{
		interval: namesInterval,
		sockets:  s.sockets,
		include: []string{"^/(docker|podman)/e2e-", "^/containerd/(default|e2e)/e2e-", "^/(k8s|k8s-cronjob|nomad)/e2e/",
			"^/swarm/e2eshop/", "^/k8s/" + podOfCRI.uid + "/"},
	}
	s.docker.importImage(ctx, t, makeRootfs(t, load))
	archive := filepath.Join(t.TempDir(), "image.tar")
	s.docker.run(ctx, t, "save", "-o", archive, testImage)
	s.makeDocker(ctx, t)
	s.makeContainerd(ctx, t, archive)
	s.makeCRI(ctx, t, archive)
	if _, err := exec.LookPath("podman"); err == nil {
		s.podman = startPodman(ctx, t, ns)
		s.makePodman(ctx, t, archive)
		s.sockets["podman"] = s.podman.socket
	}
	s.makeUnit(t, load)

	for _, n := range s.all {
		config.containers = append(config.containers, n.idForm)
	}
	for _, id := range identities(t) {
		config.identities = append(config.identities, id.name)
	}
	s.collector = startCollector(ctx, t, binary, config)
	s.watch = startWatch(t, s.collector)
	for _, n := range s.all {
		n.begin()
	}
	s.prometheus = startPrometheus(ctx, t, s.collector.targets)
	return s
}

// namedAs are the labels, in the semantic conventions, of a container that a runtime has told of.
func namedAs(runtime, id, name, image string) map[string]string {
	return map[string]string{
		"container_id": id, "container_runtime_name": runtime, "container_name": name,
		"container_image_name": strings.TrimSuffix(image, ":1"), "container_image_tags": `["1"]`,
	}
}

// makeDocker creates containers with names of their own and of those who manage containers by way of Docker.
func (s *nameScene) makeDocker(ctx context.Context, t *testing.T) {
	t.Helper()
	s.addDocker(ctx, t, "e2e-web", "/docker/e2e-web")
	s.addDocker(ctx, t, "e2e-below", "/docker/e2e-below", "--cgroup-parent", foreignParent)
	s.addDocker(ctx, t, "e2eshop_web.1.x7k2", "/swarm/e2eshop/web/1", "--label", "com.docker.swarm.task.name=e2eshop_web.1.x7k2",
		"--label", "com.docker.swarm.service.name=e2eshop_web", "--label", "com.docker.stack.namespace=e2eshop")
	s.addDocker(ctx, t, "task-1f2e", "/nomad/e2e/job/group/1f2e/task", "--env", "NOMAD_NAMESPACE=e2e", "--env", "NOMAD_JOB_NAME=job",
		"--env", "NOMAD_GROUP_NAME=group", "--env", "NOMAD_ALLOC_ID=1f2e", "--env", "NOMAD_TASK_NAME=task")

	const pod = "web-7d4b9c6f5d-x2x4z"
	web := s.addPod(ctx, t, pod, "k8s_main_"+pod+"_e2e_uid_2", "/k8s/e2e/"+pod+"/main", "--label", "io.kubernetes.container.name=main")
	web.appID = "/k8s/e2e/web"
	s.addPod(ctx, t, pod, "k8s_POD_"+pod+"_e2e_uid_0", "", "--label", "io.kubernetes.docker.type=podsandbox")
	cron := fmt.Sprintf("backup-%d-x2x4z", time.Now().Unix()/60)
	backup := s.addPod(ctx, t, cron, "k8s_main_"+cron+"_e2e_uid_0", "/k8s-cronjob/e2e/backup/main", "--label", "io.kubernetes.container.name=main")
	backup.appID = "/k8s-cronjob/e2e/backup"
}

// addDocker creates one container. One without a path form must never be shown.
func (s *nameScene) addDocker(ctx context.Context, t *testing.T, name, path string, options ...string) *named {
	t.Helper()
	id := s.docker.run(ctx, t, append(append([]string{"create", "--name", name}, options...), append([]string{testImage}, ticking...)...)...)
	n := &named{
		runtime: "docker", idForm: "/docker/" + id, image: testImage,
		who:    container{path: path, id: id, semconv: namedAs("docker", id, name, testImage)},
		begin:  func() { s.docker.run(ctx, t, "start", id) },
		pid:    func() string { return s.docker.run(ctx, t, "inspect", "-f", "{{.State.Pid}}", id) },
		rename: func(to string) { s.docker.run(ctx, t, "rename", id, to) },
	}
	s.all = append(s.all, n)
	return n
}

// addPod does it as cri-dockerd does for the kubelet.
func (s *nameScene) addPod(ctx context.Context, t *testing.T, pod, name, path string, options ...string) *container {
	t.Helper()
	n := s.addDocker(ctx, t, name, path, append(options, "--cgroup-parent", podOfDocker.parent(), "--label", "io.kubernetes.pod.namespace=e2e",
		"--label", "io.kubernetes.pod.name="+pod, "--label", "io.kubernetes.pod.uid="+podOfDocker.uid)...)
	n.idForm = "/k8s/" + podOfDocker.uid + "/" + n.who.id
	maps.Copy(n.who.semconv, podOfDocker.labels(pod))
	return &n.who
}

// makeContainerd has one container whose id is its name, and one with an id and a label as nerdctl gives it.
func (s *nameScene) makeContainerd(ctx context.Context, t *testing.T, archive string) {
	t.Helper()
	add := func(namespace, id, name, idForm string, options ...string) {
		labels := namedAs("containerd", id, name, "docker.io/"+testImage)
		labels["containerd_namespace"] = namespace
		s.containerd.importImage(ctx, t, namespace, archive)
		s.all = append(s.all, &named{
			runtime: "containerd", idForm: idForm, image: "docker.io/" + testImage,
			who:   container{path: "/containerd/" + namespace + "/" + name, id: id, semconv: labels},
			begin: func() { s.containerd.start(ctx, t, namespace, id, options, ticking...) },
			pid:   func() string { return s.containerd.pid(ctx, t, namespace, id) },
			rename: func(to string) {
				run(ctx, t, "ctr", "--address", s.containerd.socket, "-n", namespace, "containers", "label", id, "nerdctl/name="+to)
			},
		})
	}
	id := fmt.Sprintf("e2e-ctr-%d", os.Getpid())
	add("default", id, id, "/containerd/default/"+id)
	id = containerID("nerdctl")
	add("e2e", id, "e2e-nerd", "/docker/"+id, "--label", "nerdctl/name=e2e-nerd") // all that its cgroup tells
}

func (s *nameScene) makePodman(ctx context.Context, t *testing.T, archive string) {
	t.Helper()
	s.podman.run(ctx, t, "load", "-i", archive)
	const image = "localhost/" + testImage
	id := s.podman.run(ctx, t, append([]string{"create", "--pull", "never", "--name", "e2e-pod", image}, ticking...)...)
	s.all = append(s.all, &named{
		runtime: "podman", idForm: "/podman/" + id, image: image,
		who:    container{path: "/podman/e2e-pod", id: id, semconv: namedAs("podman", id, "e2e-pod", image)},
		begin:  func() { s.podman.run(ctx, t, "start", id) },
		pid:    func() string { return s.podman.run(ctx, t, "inspect", "-f", "{{.State.Pid}}", id) },
		rename: func(to string) { s.podman.run(ctx, t, "rename", id, to) },
	})
}

// makeUnit has a cgroup of a service, of which nobody tells more.
func (s *nameScene) makeUnit(t *testing.T, load string) {
	t.Helper()
	unit := systemdUnit(makeCgroup(t, fmt.Sprintf("/system.slice/e2e-%d.service", time.Now().UnixNano())))
	var p *process
	s.all = append(s.all, &named{
		runtime: "systemd", who: unit, idForm: unit.path,
		begin: func() {
			command := unit.cgroup.inside(load, "/bin/sh", "-ec", "while sleep 0.1; do :; done")
			p = start(t, "unit", exec.Command(command[0], command[1:]...))
		},
		pid: func() string { return fmt.Sprint(p.cmd.Process.Pid) },
	})
}

// shown returns the containers that have to be shown now.
func (s *nameScene) shown() []container {
	var all []container
	for _, n := range s.all {
		if n.who.path != "" {
			all = append(all, n.who)
		}
	}
	return all
}

// checkLabels wants exactly these containers with exactly these labels.
func (s *nameScene) checkLabels(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, id := range identities(t) {
		eventually(ctx, t, 10*time.Second, "names in identity "+id.name, func() error {
			p, err := readPage(ctx, s.collector.targets[id.name])
			if err == nil {
				err = wantOnly(p, id, s.shown())
			}
			return err
		})
		eventually(ctx, t, 20*time.Second, "names in Prometheus in identity "+id.name, func() error {
			all, err := s.prometheus.query(ctx, fmt.Sprintf("{__name__=~'container_.+',job=%q}", id.name))
			if err == nil {
				err = wantOnly(all, id, s.shown())
			}
			return err
		})
		for _, n := range s.all {
			if n.who.path != "" {
				s.checkInfo(ctx, t, id, n)
			}
		}
	}
	t.Log(s.table(t))
}

// wantOnly returns an error unless the series have the resources of these containers, and of no others.
func wantOnly(all []series, id identity, containers []container) error {
	if diff := cmp.Diff(id.resources(containers...), resourcesOf(all)); diff != "" {
		return fmt.Errorf("resources (-want +got):\n%s", diff)
	}
	return nil
}

// checkInfo looks at container_info, and at the restarts that only a runtime can know of.
func (s *nameScene) checkInfo(ctx context.Context, t *testing.T, id identity, n *named) {
	t.Helper()
	info, err := s.prometheus.query(ctx, "container_info{"+id.selector(n.who)+"}")
	if err == nil {
		err = id.checkLabels(n.who, info)
	}
	if err != nil || len(info) != 1 || info[0].value != 1 || info[0].labels["image"] != n.image {
		t.Errorf("container_info of %s: %v, %v; want one with image %q", n.who.path, info, err, n.image)
	}
	restarts := 0.0
	if strings.HasPrefix(n.who.path, "/k8s/") {
		restarts = 2
	}
	if err := s.prometheus.wantValue(ctx, "container_restarts_total{"+id.selector(n.who)+"}", restarts); err != nil {
		t.Error(err)
	}
}

// table tells people what was called what.
func (s *nameScene) table(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("runtime | cgroup | semconv | coroot\n")
	for _, n := range s.all {
		cgroup := hostFile(t, filepath.Join("/proc", n.pid(), "cgroup"))
		path := ""
		for line := range strings.Lines(cgroup) { // the tree of v2 may be empty
			if p := strings.TrimSpace(strings.SplitN(line, ":", 3)[2]); p != "/" && path == "" {
				path = p
			}
		}
		if n.who.id != "" {
			path = strings.ReplaceAll(path, n.who.id, "<id>")
		}
		labels := maps.Clone(n.who.semconv)
		if len(labels["container_id"]) == 64 {
			labels["container_id"] = labels["container_id"][:12] + "..."
		}
		semconv, coroot := resourceKey(labels), n.who.path
		if n.who.appID != "" {
			coroot += " app_id " + n.who.appID
		}
		if n.who.path == "" {
			semconv, coroot = "-", "-"
		}
		fmt.Fprintf(&b, "%s | %s | %s | %s\n", n.runtime, path, semconv, coroot)
	}
	return b.String()
}

// checkNoIDs looks at everything that was ever shown.
func (s *nameScene) checkNoIDs(t *testing.T) {
	t.Helper()
	for _, id := range identities(t) {
		known := id.resources(append(s.shown(), s.renamed...)...)
		all, reads := s.watch.resources(id.name)
		for _, resource := range all {
			if !slices.Contains(known, resource) {
				t.Errorf("shown for a while in identity %s: %s", id.name, resource)
			}
		}
		t.Logf("%d pages read", reads)
	}
}
