// SPDX-License-Identifier: Apache-2.0

package mounts

import "testing"

func TestVolumeName(t *testing.T) {
	const id = "pvc-0a1b2c3d-4e5f-6789-abcd-ef0123456789"
	for path, want := range map[string]string{
		"/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/" + id + "/mount": id,
		"/var/lib/kubelet/pods/u/volumes/kubernetes.io~aws-ebs/" + id:        id,
		"/opt/local-path-provisioner/" + id + "_default_data":                id,
		"10.0.0.1:/export/default-data-" + id:                                id,
		"/var/lib/kubelet/pods/u/volume-subpaths/" + id + "/postgres/0":      id,
		"/mnt/pvc-00000000-0000-0000-0000-000000000000/x/" + id + "/y":       id,
		"server:/" + id + "0":      "",
		"server:/x" + id:           "",
		"/pvc-0a1b2c3d":            "",
		"/data":                    "",
		"":                         "",
		"server:/" + id + "/" + id: id,
	} {
		if got := VolumeName(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestIsVolume(t *testing.T) {
	const container = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for path, want := range map[string]bool{
		"/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache":                               true,
		"/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/data/mount/sub":                            true,
		"/kubelet/pods/u/volumes/kubernetes.io~nfs/data":                                              true,
		"/var/lib/kubelet/pods/u/volumes/kubernetes.io~configmap/conf":                                false,
		"/var/lib/kubelet/pods/u/volumes/kubernetes.io~secret/s":                                      false,
		"/var/lib/kubelet/pods/u/volumes/kubernetes.io~projected/kube-api-access":                     false,
		"/var/lib/kubelet/pods/u/volume-subpaths/data/db/0":                                           true,
		"/var/lib/kubelet/pods/u/etc-hosts":                                                           false,
		"/var/lib/docker/volumes/pg/_data":                                                            true,
		"/volumes/pg/_data/sub":                                                                       true,
		"/home/u/.local/share/containers/storage/volumes/pg/_data":                                    true,
		"/var/lib/nerdctl/1935db59/volumes/default/pg/_data":                                          true,
		"/var/lib/docker/volumes/pg/_database":                                                        false,
		"/var/lib/docker/volumes":                                                                     false,
		"/var/lib/containerd/io.containerd.grpc.v1.cri/containers/" + container + "/volumes/0123abcd": true,
		"/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/fs":                   false,
		"10.0.0.1:/export/pvc-0a1b2c3d-4e5f-6789-abcd-ef0123456789":                                   true,
		"/mnt/volumes/music": false,
		"/":                  false,
	} {
		if got := isVolume(path); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
}
