// SPDX-License-Identifier: Apache-2.0

package cgroups

import "strings"

// hexIDLen is the length of the ids that Docker, containerd's CRI plugin, CRI-O, Podman and nerdctl give.
const hexIDLen = 64

// cutHexID splits a component such as docker-ID.scope, libpod-ID, SLICE:cri-containerd:ID or a bare ID.
func cutHexID(c string) (prefix, id string, ok bool) {
	s := strings.TrimSuffix(c, ".scope")
	if len(s) < hexIDLen {
		return "", "", false
	}
	prefix, id = s[:len(s)-hexIDLen], s[len(s)-hexIDLen:]
	if !isHex(id) {
		return "", "", false
	}
	if prefix == "" {
		return "", id, len(s) == len(c) // a bare ID.scope is nobody's
	}
	switch prefix[len(prefix)-1] {
	case '-', ':', '_':
		return prefix[:len(prefix)-1], id, true
	}
	return "", "", false
}

// runtimeOfPrefix returns the runtime that names its cgroups so, "" for an unknown one.
func runtimeOfPrefix(prefix string) string {
	switch prefix {
	case "docker":
		return "docker"
	case "cri-containerd", "nerdctl":
		return "containerd"
	case "crio":
		return "cri-o"
	case "libpod", "libpod-payload":
		return "podman"
	}
	return ""
}

// isMonitor tells whether the component is the cgroup of a process that only watches a container.
func isMonitor(c string) bool {
	return strings.HasPrefix(c, "crio-conmon-") || strings.HasPrefix(c, "libpod-conmon-") ||
		strings.HasPrefix(c, "lxc.monitor")
}

// pod returns the UID of the pod that the component stands for, "" for none.
func (p *pathParser) pod(c string) string {
	if uid := podOfSlice(c); uid != "" {
		return uid
	}
	if !p.kube {
		return ""
	}
	switch p.prev {
	case "kubepods", "kubepods.slice", "burstable", "besteffort":
		if uid, ok := strings.CutPrefix(c, "pod"); ok {
			return uid
		}
	}
	return ""
}

// podOfSlice returns the UID in [PARENT-]kubepods[-QOS]-pod<UID>.slice. systemd has no dashes within one level of
// slices, so kubelet writes underscores.
func podOfSlice(c string) string {
	s, ok := strings.CutSuffix(c, ".slice")
	if !ok {
		return ""
	}
	i := strings.LastIndex(s, "-pod")
	if i < 0 {
		return ""
	}
	parent := s[:i]
	parent = strings.TrimSuffix(strings.TrimSuffix(parent, "-burstable"), "-besteffort")
	if parent != "kubepods" && !strings.HasSuffix(parent, "-kubepods") {
		return ""
	}
	return strings.ReplaceAll(s[i+len("-pod"):], "_", "-")
}

// ecsTask returns the task in the parent of an ECS container: TASK, or ecstasks-TASK.slice.
func ecsTask(parent string) string {
	switch parent {
	case "ecs", "ecstasks.slice":
		return ""
	}
	if task, ok := cut(parent, "ecstasks-", ".slice"); ok {
		return task
	}
	return parent
}

// isFargateID tells whether s is a container id of Fargate: the 32 hex digits of the task, a dash and a number.
func isFargateID(s string) bool {
	const task = 32
	return len(s) > task+1 && isHex(s[:task]) && s[task] == '-' && isDigits(s[task+1:])
}

// isNomadTask tells whether s is ALLOCATION.TASK, where the allocation is a UUID.
func isNomadTask(s string) bool {
	const uuid = 36
	if len(s) < uuid+2 || s[uuid] != '.' {
		return false
	}
	for i := range uuid {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if !isHex(s[i : i+1]) {
				return false
			}
		}
	}
	return true
}

// isUserManager tells whether the unit is the systemd of a user, whose units count on their own.
func isUserManager(unit string) bool {
	uid, ok := cut(unit, "user@", ".service")
	return ok && isDigits(uid)
}

// cut returns what stands between prefix and suffix, if anything does.
func cut(s, prefix, suffix string) (string, bool) {
	if len(s) <= len(prefix)+len(suffix) || !strings.HasPrefix(s, prefix) || !strings.HasSuffix(s, suffix) {
		return "", false
	}
	return s[len(prefix) : len(s)-len(suffix)], true
}

func isHex(s string) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
