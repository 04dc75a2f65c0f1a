// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"path"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

const (
	specURL     = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
	metadataURL = "github.com/containerd/cri/pkg/store/container/Metadata"
)

func specOf(text string) *anypb.Any { return &anypb.Any{TypeUrl: specURL, Value: []byte(text)} }

func TestContainerdInfo(t *testing.T) {
	id := strings.Repeat("be", 32)
	nerdctl := map[string]string{
		"nerdctl/name":       "nginx",
		"nerdctl/log-config": `{"driver":"json-file","address":"/run/containerd/containerd.sock"}`,
		"nerdctl/log-uri":    "binary:///usr/local/bin/nerdctl?_NERDCTL_INTERNAL_LOGGING=%2Fvar%2Flib%2Fnerdctl%2F1935db59",
		"nerdctl/mounts": `[{"Type":"volume","Name":"site","Source":"/var/lib/nerdctl/1935db59/volumes/default/site/_data","Destination":"/site"},
			{"Type":"bind","Source":"/srv","Destination":"/srv"}]`,
	}
	pod := map[string]string{
		labelContainer: "web", labelPodName: "web-0", labelPodNamespace: "shop", labelPodUID: "u", labelCRIKind: "container",
	}
	sandbox := map[string]string{labelPodName: "web-0", labelPodNamespace: "shop", labelPodUID: "u", labelCRIKind: "sandbox"}
	podIs := Pod{Namespace: "shop", Name: "web-0", UID: "u"}
	gvisor := &containersapi.Container_Runtime{Name: "io.containerd.runsc.v1"}
	digest := "sha256:" + id
	for _, tt := range []struct {
		name      string
		container *containersapi.Container
		namespace string
		want      Info
	}{
		{
			name: "nerdctl", namespace: "default",
			container: &containersapi.Container{
				ID: id, Labels: nerdctl, Image: "docker.io/library/nginx:alpine",
				Spec: specOf(`{"process":{"env":["SECRET=1","NOMAD_JOB_NAME=j"]},"annotations":{"a":"b"},"mounts":[
					{"destination":"/proc","type":"proc","source":"proc"},
					{"destination":"/site","type":"bind","source":"/var/lib/nerdctl/1935db59/volumes/default/site/_data","options":["rbind"]},
					{"destination":"/srv","type":"bind","source":"/srv"},{"destination":"/x","type":"bind","source":"relative"}]}`),
			},
			want: Info{
				Name: "nginx", Image: Image{Reference: "docker.io/library/nginx:alpine"}, Labels: nerdctl,
				Annotations: map[string]string{"a": "b"}, Env: map[string]string{"NOMAD_JOB_NAME": "j"}, LogDriver: "json-file",
				LogPath: "/var/lib/nerdctl/1935db59/containers/default/" + id + "/" + id + "-json.log",
				Mounts: []Mount{
					{Source: "/var/lib/nerdctl/1935db59/volumes/default/site/_data", Destination: "/site", Volume: "site"},
					{Source: "/srv", Destination: "/srv"},
				},
			},
		},
		{
			name: "compose", namespace: "default",
			container: &containersapi.Container{ID: id, Labels: map[string]string{
				"com.docker.compose.project": "p", "com.docker.compose.service": "s", "com.docker.compose.container-number": "2",
			}},
			want: Info{Name: "p-s-2", Labels: map[string]string{
				"com.docker.compose.project": "p", "com.docker.compose.service": "s", "com.docker.compose.container-number": "2",
			}},
		},
		{
			name: "a bare container", namespace: "default", container: &containersapi.Container{ID: id, Image: digest},
			want: Info{Name: id, Image: Image{Reference: digest, ID: digest}},
		},
		{
			name: "Docker's", namespace: "moby", container: &containersapi.Container{ID: id, Spec: specOf(`{"process":{"env":["EBPF_CONTAINER_LOGS=x"]}}`)},
			want: Info{Runtime: "docker", Env: map[string]string{"EBPF_CONTAINER_LOGS": "x"}},
		},
		{
			name: "of a pod", namespace: "k8s.io",
			container: &containersapi.Container{
				ID: id, Labels: pod, Image: digest, Runtime: gvisor, Spec: specOf(`{"mounts":[{"destination":"/dev/shm","type":"bind","source":"/run/x/shm"}]}`),
				Extensions: map[string]*anypb.Any{extensionCRI: {TypeUrl: metadataURL, Value: []byte(
					`{"Version":"v1","Metadata":{"ID":"` + id + `","LogPath":"/var/log/pods/x/web/4.log","ImageRef":"` + digest + `","Config":{
						"metadata":{"name":"web","attempt":3},"image":{"image":"` + digest + `","user_specified_image":"app:1"},
						"annotations":{"io.kubernetes.container.restartCount":"4"},"mounts":[{"container_path":"/data","host_path":"/mnt"},{"container_path":"/i"}]}}}`,
				)}},
			},
			want: Info{
				Name: "web", Pod: podIs, Restarts: 4, Image: Image{Reference: "app:1", ID: digest}, Labels: pod,
				Annotations: map[string]string{"io.kubernetes.container.restartCount": "4"},
				LogPath:     "/var/log/pods/x/web/4.log", Mounts: []Mount{{Source: "/mnt", Destination: "/data"}},
			},
		},
		{
			name: "the sandbox of a pod", namespace: "k8s.io", container: &containersapi.Container{ID: id, Labels: sandbox},
			want: Info{Sandbox: true, Pod: podIs, Labels: sandbox},
		},
		{
			name: "the sandbox of gVisor", namespace: "k8s.io", container: &containersapi.Container{ID: id, Labels: sandbox, Runtime: gvisor},
			want: Info{Sandbox: true, VM: true, Pod: podIs, Labels: sandbox},
		},
		{
			name: "a specification of another kind", namespace: "default",
			container: &containersapi.Container{ID: id, Spec: &anypb.Any{TypeUrl: "x", Value: []byte(`{"annotations":{"a":"b"}}`)}},
			want:      Info{Name: id},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Runtime = firstOf(tt.want.Runtime, "containerd")
			tt.want.Namespace, tt.want.ID = tt.namespace, id
			if diff := cmp.Diff(tt.want, containerdInfo(tt.container, tt.namespace)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestNerdctlLog(t *testing.T) {
	const uri = "binary:///usr/bin/nerdctl?_NERDCTL_INTERNAL_LOGGING=%2Fdata"
	for _, tt := range []struct{ name, config, uri, driver, file string }{
		{name: "not nerdctl"},
		{name: "no driver", uri: uri},
		{name: "another driver", config: `{"driver":"journald"}`, uri: uri, driver: "journald"},
		{name: "own path", config: `{"driver":"json-file","opts":{"log-path":"/var/log/x"}}`, uri: uri, driver: "json-file", file: "/var/log/x"},
		{name: "data", config: `{"driver":"json-file"}`, uri: uri, driver: "json-file", file: "/data/containers/n/i/i-json.log"},
		{name: "no data", config: `{"driver":"json-file"}`, uri: "binary:///usr/bin/nerdctl", driver: "json-file"},
		{name: "bad URI", config: `{"driver":"json-file"}`, uri: "%zz", driver: "json-file"},
		{name: "bad JSON", config: `{"driver"`, uri: uri},
	} {
		t.Run(tt.name, func(t *testing.T) {
			labels := map[string]string{labelNerdctlLogConfig: tt.config, labelNerdctlLogURI: tt.uri}
			if driver, file := nerdctlLog(labels, "n", "i"); driver != tt.driver || file != tt.file {
				t.Errorf("got %q %q, want %q %q", driver, file, tt.driver, tt.file)
			}
		})
	}
}

func TestLikelyNamespace(t *testing.T) {
	for _, tt := range []struct {
		ref       cgroups.Ref
		namespace string
		certain   bool
	}{
		{ref: cgroups.Ref{Kind: cgroups.Containerd, Namespace: "default"}, namespace: "default", certain: true},
		{ref: cgroups.Ref{Kind: cgroups.Containerd}},
		{ref: cgroups.Ref{Kind: cgroups.Talos, Namespace: "podruntime"}, namespace: "system"},
		{ref: cgroups.Ref{Kind: cgroups.Kubernetes}, namespace: "k8s.io"},
		{ref: cgroups.Ref{Kind: cgroups.Docker}, namespace: "moby"},
		{ref: cgroups.Ref{Kind: cgroups.ECS, Namespace: "task"}},
	} {
		if namespace, certain := likelyNamespace(tt.ref); namespace != tt.namespace || certain != tt.certain {
			t.Errorf("%v: got %q %v, want %q %v", tt.ref, namespace, certain, tt.namespace, tt.certain)
		}
	}
}

func FuzzContainerdInfo(f *testing.F) {
	f.Add([]byte(`{"process":{"env":["A=1","NOMAD_JOB_NAME=j"]},"annotations":{"a":"b"},"mounts":[{"destination":"/d","type":"bind","source":"/s"}]}`),
		[]byte(`{"Version":"v1","Metadata":{"LogPath":"/l","Config":{"metadata":{"attempt":3},"mounts":[{"container_path":"/c","host_path":"/h"}]}}}`),
		`[{"Type":"volume","Name":"n","Destination":"/d"}]`, `{"driver":"json-file","opts":{}}`, "binary:///n?_NERDCTL_INTERNAL_LOGGING=%2Fdata")
	f.Fuzz(func(t *testing.T, spec, extension []byte, mounts, logConfig, logURI string) {
		labels := map[string]string{labelNerdctlMounts: mounts, labelNerdctlLogConfig: logConfig, labelNerdctlLogURI: logURI}
		info := containerdInfo(&containersapi.Container{ID: "id", Labels: labels, Spec: specOf(string(spec))}, "default")
		checkEnv(t, info.Env)
		for _, m := range info.Mounts {
			if !path.IsAbs(m.Source) {
				t.Errorf("mount of %q", m.Source)
			}
		}
		info = containerdInfo(&containersapi.Container{
			ID: "id", Labels: labels, Extensions: map[string]*anypb.Any{extensionCRI: {TypeUrl: metadataURL, Value: extension}},
		}, "default")
		checkImage(t, info.Image)
		if info.Restarts < 0 {
			t.Errorf("%d restarts", info.Restarts)
		}
	})
}
