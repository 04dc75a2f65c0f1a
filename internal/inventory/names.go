// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"strconv"
	"strings"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/runtimes"
)

// cronWindow is how far from now the time in the name of a pod may be, for a cron job to be behind it.
const cronWindow = 7 * 24 * time.Hour

// pathForm returns the name of a container that Coroot knows it by: the first of these whose parts are all known.
//
//	/k8s-cronjob/NAMESPACE/CRONJOB/CONTAINER, where the pod is called as those of cron jobs are
//	/k8s/NAMESPACE/POD/CONTAINER, with CONTAINER = sandbox where all of the pod runs in one virtual machine
//	/swarm/STACK/SERVICE/SLOT, with STACK = _ outside stacks, and SLOT = the id of the node for a global service
//	/nomad/NAMESPACE/JOB/GROUP/ALLOC_ID/TASK
//	/ecs/FAMILY/CONTAINER
//	/docker/NAME, /podman/NAME, /containerd/NAMESPACE/NAME, by the runtime that knows it
//	what the cgroup tells
//
// It is "" for None only. Coroot takes the name apart at its slashes, so a slash in a part becomes %2F, and a percent sign
// %25: different parts stay different. Both are rare, the runtimes allow them in no name of theirs. Bytes that are not
// UTF-8 stay; the receiver deals with them for all names.
//
// Successive runs of a cron job, and a container of a pod and the one that replaces it, have the same name on purpose. So
// have two tasks of one ECS family on one host, and the task of a service and the one that takes its slot, for as long as
// both live: the caller must expect that.
func pathForm(ref cgroups.Ref, info *runtimes.Info, now time.Time) string {
	switch ref.Kind {
	case cgroups.None, cgroups.Systemd, cgroups.LXC, cgroups.Machine, cgroups.Talos:
		return ref.Name() // the path tells all, and nobody tells more
	}
	if info == nil {
		return ref.Name()
	}
	for _, form := range [...]string{podForm(info, now), swarmForm(info), nomadForm(info), ecsForm(info), runtimeForm(ref, info)} {
		if form != "" {
			return form
		}
	}
	return ref.Name()
}

// form joins the parts to a path, "" if one of them is empty.
func form(head string, parts ...string) string {
	for i, part := range parts {
		if part == "" {
			return ""
		}
		if strings.ContainsAny(part, "%/") {
			parts[i] = strings.ReplaceAll(strings.ReplaceAll(part, "%", "%25"), "/", "%2F")
		}
	}
	return head + "/" + strings.Join(parts, "/")
}

func podForm(info *runtimes.Info, now time.Time) string {
	name := info.Name
	if info.VM && info.Sandbox {
		name = "sandbox"
	}
	if job := cronJob(info.Pod.Name, now); job != "" {
		return form("/k8s-cronjob", info.Pod.Namespace, job, name)
	}
	return form("/k8s", info.Pod.Namespace, info.Pod.Name, name)
}

// swarmForm knows the tasks of Docker Swarm. A task is called SERVICE.SLOT.ID; those of global services have no slot, the
// id of their node stands in its place (api/naming of moby/swarmkit). None of the three has a dot.
func swarmForm(info *runtimes.Info) string {
	task := strings.Split(info.Labels["com.docker.swarm.task.name"], ".")
	if len(task) < 3 {
		return ""
	}
	stack, service := info.Labels["com.docker.stack.namespace"], info.Labels["com.docker.swarm.service.name"]
	if stack == "" {
		stack = "_"
	} else {
		service = strings.TrimPrefix(service, stack+"_")
	}
	return form("/swarm", stack, service, task[len(task)-2])
}

// nomadForm knows the tasks of Nomad. What a periodic or parameterised job starts is a job of its own, JOB/periodic-TIME or
// JOB/dispatch-TIME-ID, whose name ends with it. It is taken for JOB: its allocation tells it apart.
func nomadForm(info *runtimes.Info) string {
	job, env := info.Env["NOMAD_JOB_NAME"], info.Env
	for _, launch := range [...]string{"/periodic-", "/dispatch-"} {
		if i := strings.LastIndex(job, launch); i > 0 {
			job = job[:i]
		}
	}
	return form("/nomad", env["NOMAD_NAMESPACE"], job, env["NOMAD_GROUP_NAME"], env["NOMAD_ALLOC_ID"], env["NOMAD_TASK_NAME"])
}

func ecsForm(info *runtimes.Info) string {
	return form("/ecs", info.Labels["com.amazonaws.ecs.task-definition-family"], info.Labels[ecsContainer])
}

// runtimeForm names a container that no orchestrator has named. A container of a pod keeps what tells its pod.
func runtimeForm(ref cgroups.Ref, info *runtimes.Info) string {
	if ref.Kind == cgroups.Kubernetes {
		return ""
	}
	switch info.Runtime {
	case "docker", "podman":
		return form("/"+info.Runtime, info.Name)
	case "containerd":
		if info.Namespace == "moby" { // Docker's own, which has told nothing itself
			return ""
		}
		name := info.Name
		if name == "" { // the path may not have told that it is containerd's
			name = ref.ID
		}
		return form("/containerd", info.Namespace, name)
	}
	return ""
}

// appID returns what Coroot calls the application of a container: /k8s/NAMESPACE/NAME with NAME = that of the deployment,
// daemon set, job or stateful set as the name of the pod tells it, or /k8s-cronjob/NAMESPACE/NAME. It is "" for pods
// that nobody has made so, and for what is no pod.
func appID(ref cgroups.Ref, info *runtimes.Info, now time.Time) string {
	if info == nil || ref.Kind == cgroups.None {
		return ""
	}
	if job := cronJob(info.Pod.Name, now); job != "" {
		return form("/k8s-cronjob", info.Pod.Namespace, job)
	}
	return form("/k8s", info.Pod.Namespace, workload(info.Pod.Name))
}

// cronJob returns the name of the cron job whose pod is called JOB-MINUTES-RANDOM, with minutes since 1970. It is "" for
// other pods and for times that are long ago or far ahead.
func cronJob(pod string, now time.Time) string {
	name, ok := cutRandom(pod)
	if !ok {
		return ""
	}
	i := strings.LastIndexByte(name, '-')
	if i < 1 || len(name)-i-1 != 8 || !isOf(name[i+1:], "0123456789") {
		return ""
	}
	minutes, err := strconv.ParseInt(name[i+1:], 10, 64)
	if err != nil {
		return ""
	}
	if age := now.Sub(time.Unix(minutes*60, 0)); age > cronWindow || age < -cronWindow {
		return ""
	}
	return name[:i]
}

// workload returns the name of a pod without what its controller has added, "" if there is nothing of that kind: a
// deployment -HASH-RANDOM, a daemon set or a job -RANDOM, a stateful set -NUMBER.
//
// The hash is said to have the letters of RANDOM. In fact it encodes the digits of a number (ComputeHash of
// k8s.io/kubernetes/pkg/controller), for which these letters are 4 to 9, b, c, d and f; old versions have the digits
// themselves. So it is taken for hexadecimal, which leaves more names of daemon sets whole.
func workload(pod string) string {
	if name, ok := cutRandom(pod); ok {
		if i := strings.LastIndexByte(name, '-'); i > 0 && len(name)-i-1 <= 10 && isOf(name[i+1:], "0123456789abcdef") {
			return name[:i]
		}
		return name
	}
	if i := strings.LastIndexByte(pod, '-'); i > 0 && isOf(pod[i+1:], "0123456789") {
		return pod[:i]
	}
	return ""
}

// cutRandom cuts off what the API server appends to generateName: a dash and five letters that make no words.
func cutRandom(pod string) (string, bool) {
	i := len(pod) - 6
	if i < 1 || pod[i] != '-' || !isOf(pod[i+1:], "bcdfghjklmnpqrstvwxz2456789") {
		return "", false
	}
	return pod[:i], true
}

// isOf tells whether s has characters, and none but these.
func isOf(s, characters string) bool { return s != "" && strings.Trim(s, characters) == "" }

const (
	ecsContainer = "com.amazonaws.ecs.container-name"
	ecsPause     = "~internal~ecs~pause" // amazon-ecs-agent, where a task has its own network; "-" and a name may follow
)

// isIgnored tells whether a container only holds the namespaces of a pod or task.
//
// Where a pod runs in a virtual machine its sandbox counts, since all processes are there. Its containers have none, but
// stay too: what they log, and how often they begin anew, is known for each of them.
func isIgnored(ref cgroups.Ref, info *runtimes.Info) bool {
	if info == nil || ref.Kind == cgroups.Systemd {
		return false
	}
	if info.Sandbox {
		return !info.VM
	}
	return info.Pod.Name != "" && (info.Name == "" || info.Name == "POD") || strings.HasPrefix(info.Labels[ecsContainer], ecsPause)
}

// logsDisabled tells whether somebody wants that the logs of a container are not looked at: a label, an annotation or an
// environment variable EBPF_CONTAINER_LOGS, or COROOT_LOG_MONITORING as with Coroot, is disabled, off or false. One that
// says otherwise does not count.
func logsDisabled(info *runtimes.Info) bool {
	if info == nil {
		return false
	}
	for _, words := range [...]map[string]string{info.Labels, info.Annotations, info.Env} {
		for _, name := range [...]string{"EBPF_CONTAINER_LOGS", "COROOT_LOG_MONITORING"} {
			switch strings.ToLower(strings.TrimSpace(words[name])) {
			case "disabled", "off", "false":
				return true
			}
		}
	}
	return false
}
