// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"regexp"
	"slices"
	"strings"
)

var (
	volumePattern = regexp.MustCompile(`pvc-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	// dockerVolume also fits Podman's and, with a namespace, nerdctl's.
	dockerVolume = regexp.MustCompile(`/volumes/(?:[^/]+/){1,2}_data(?:/|$)`)
	// criVolume is what containerd makes for the VOLUMEs of an image.
	criVolume = regexp.MustCompile(`/containers/[0-9a-f]{64}/volumes/[^/]`)
)

// VolumeName returns the name of the persistent volume, pvc-UUID, that is in the path of a directory of the kubelet, of a
// provisioner, of an export or the like; else "".
func VolumeName(path string) string {
	if !strings.Contains(path, "pvc-") {
		return ""
	}
	all := volumePattern.FindAllStringIndex(path, -1)
	for i := len(all) - 1; i >= 0; i-- { // the last one is the nearest
		from, to := all[i][0], all[i][1]
		if (to == len(path) || !isWord(path[to])) && (from == 0 || !isWord(path[from-1])) {
			return path[from:to]
		}
	}
	return ""
}

func isWord(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// kubernetesOwn are volumes that the kubelet fills itself, and nobody else.
var kubernetesOwn = []string{"configmap/", "secret/", "projected/", "downward-api/"}

// isVolume tells that a path is in the directory of a volume of Kubernetes, of Docker, Podman or nerdctl, or that an image
// asked for.
func isVolume(path string) bool {
	if _, rest, ok := strings.Cut(path, "/volumes/kubernetes.io~"); ok {
		for _, own := range kubernetesOwn {
			if strings.HasPrefix(rest, own) {
				return false
			}
		}
		return true
	}
	if !strings.Contains(path, "/volume") {
		return VolumeName(path) != ""
	}
	return strings.Contains(path, "/volume-subpaths/") && strings.Contains(path, "/pods/") || dockerVolume.MatchString(path) ||
		criVolume.MatchString(path) || VolumeName(path) != ""
}

// volume is what paths tell of a mount as a volume.
type volume struct {
	name  string // as VolumeName
	named bool   // it is one; it counts also when nothing is open for writing
}

// volumeOf tells of a mount in a table whether it is a volume. Where only a block device was mounted into the container, the
// mount table of the host knows the directory; host may be nil.
func volumeOf(e *entry, own, host *table) volume {
	var v volume
	note := func(path string) {
		if v.name == "" {
			v.name = VolumeName(path)
		}
		v.named = v.named || isVolume(path)
	}
	note(e.root)
	note(e.source)
	if host != nil {
		for _, h := range host.sameFileSystem(e) {
			note(h.mountPoint)
		}
	}
	v.named = v.named && !own.seesVolumeAtItsPath(e)
	return v
}

// seesVolumeAtItsPath tells that a volume is mounted where the kubelet or Docker mounts it: then it is the host that looks, or a
// service or container that sees all of the host, and the volume is that of somebody else.
func (t *table) seesVolumeAtItsPath(e *entry) bool {
	return slices.ContainsFunc(t.volumes[e.number], func(o *entry) bool {
		return isBelow(e.root, o.root) || isBelow(o.root, e.root)
	})
}

// sameFileSystem returns the mounts that hold what another one holds, of these the ones with the nearest root directory.
func (t *table) sameFileSystem(e *entry) []*entry {
	var found []*entry
	best := -1
	for _, h := range t.byNumber[e.number] {
		if h.fsType != e.fsType || h.id == e.id || !isBelow(e.root, h.root) || len(h.root) < best {
			continue
		}
		if len(h.root) > best {
			best, found = len(h.root), found[:0]
		}
		found = append(found, h)
	}
	return found
}

// isBelow tells that a path is a directory or in it.
func isBelow(path, dir string) bool {
	return strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/' || strings.HasSuffix(dir, "/"))
}
