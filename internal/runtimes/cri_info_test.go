// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestParseCRIInfoReadsWhatItCan(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		sandbox  string
		env      map[string]string
	}{
		{name: "nothing"},
		{name: "no JSON", in: `{"sandboxID":"s"`},
		{name: "null", in: "null"},
		{name: "a list", in: "[]"},
		{name: "members of other types", in: `{"sandboxID":"s","config":7,"runtimeSpec":{"process":{"env":["NOMAD_JOB_NAME=j",5,null]},"annotations":[]}}`,
			sandbox: "s", env: map[string]string{"NOMAD_JOB_NAME": "j"}},
		{name: "without a specification", in: `{"sandboxID":"s","config":{"envs":[{"key":"NOMAD_JOB_NAME","value":"a=b"},{"key":"SECRET","value":"x"},null]}}`,
			sandbox: "s", env: map[string]string{"NOMAD_JOB_NAME": "a=b"}},
		{name: "too long", in: `{"sandboxID":"s"}` + strings.Repeat(" ", maxJSON)},
		{name: "too deep", in: strings.Repeat(`{"config":`, 20000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			info := parseCRIInfo(tt.in)
			if info.SandboxID != tt.sandbox {
				t.Errorf("got sandbox %q, want %q", info.SandboxID, tt.sandbox)
			}
			if diff := cmp.Diff(tt.env, info.env()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func FuzzParseCRIInfo(f *testing.F) {
	for _, name := range []string{"crio-1.30", "containerd-1.7-gvisor"} {
		r := readRecorded(f, name)
		for _, answer := range r.containers {
			f.Add(answer.GetInfo()[verboseInfo])
		}
		for _, answer := range r.sandboxes {
			f.Add(answer.GetInfo()[verboseInfo])
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		info := parseCRIInfo(text)
		checkEnv(t, info.env())
		checkImage(t, imageOf(&runtimeapi.ContainerStatus{}, info))
	})
}

func checkEnv(t *testing.T, env map[string]string) {
	t.Helper()
	for name := range env {
		if !slices.Contains(WantedEnv[:], name) {
			t.Errorf("variable %q", name)
		}
	}
}

func checkImage(t *testing.T, i Image) {
	t.Helper()
	if i.ID != "" && digestOf(i.ID) != i.ID {
		t.Errorf("image id %q", i.ID)
	}
	if i.Reference == "" && i.ID != "" {
		t.Error("an image without a reference")
	}
}

func TestImageOfIsTheOneAskedFor(t *testing.T) {
	hex := strings.Repeat("5e", 32)
	id := "sha256:" + hex
	spec := func(annotations ...string) criInfo {
		var info criInfo
		info.RuntimeSpec.Annotations = map[string]string{}
		for i := 0; i < len(annotations); i += 2 {
			info.RuntimeSpec.Annotations[annotations[i]] = annotations[i+1]
		}
		return info
	}
	var asked criInfo
	asked.Config.Image.Image, asked.Config.Image.UserSpecifiedImage = id, "busybox"
	for _, tt := range []struct {
		name   string
		status *runtimeapi.ContainerStatus
		extra  criInfo
		want   Image
	}{
		{name: "nothing", status: &runtimeapi.ContainerStatus{}},
		{
			name: "by the kubelet",
			status: &runtimeapi.ContainerStatus{
				Image:    &runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: "registry.example:5000/team/app:1.2"},
				ImageRef: "registry.example:5000/team/app@" + id,
			},
			want: Image{Reference: "registry.example:5000/team/app:1.2", ID: id},
		},
		{
			name:   "some tag of the same image",
			status: &runtimeapi.ContainerStatus{Image: &runtimeapi.ImageSpec{Image: "docker.io/library/another:2"}},
			extra:  asked, want: Image{Reference: "busybox", ID: id},
		},
		{
			name:   "only an id",
			status: &runtimeapi.ContainerStatus{Image: &runtimeapi.ImageSpec{Image: hex}}, want: Image{Reference: id, ID: id},
		},
		{
			name:   "by digest",
			status: &runtimeapi.ContainerStatus{Image: &runtimeapi.ImageSpec{Image: id}, ImageRef: "docker.io/library/busybox@" + id, ImageId: hex},
			want:   Image{Reference: "docker.io/library/busybox@" + id, ID: id},
		},
		{
			name:   "containerd's annotation",
			status: &runtimeapi.ContainerStatus{Image: &runtimeapi.ImageSpec{Image: id}},
			extra:  spec(containerdImageName, "docker.io/library/busybox:1"), want: Image{Reference: "docker.io/library/busybox:1", ID: id},
		},
		{
			name:   "CRI-O's annotations",
			status: &runtimeapi.ContainerStatus{},
			extra:  spec(crioImage, hex, crioImageName, "quay.io/x/y:z", crioImageRef, hex), want: Image{Reference: "quay.io/x/y:z", ID: id},
		},
		{
			name: "cri-dockerd",
			status: &runtimeapi.ContainerStatus{
				Image: &runtimeapi.ImageSpec{Image: "busybox:1"}, ImageRef: "docker://" + id,
			},
			want: Image{Reference: "busybox:1", ID: id},
		},
		{
			name:   "cri-dockerd by digest",
			status: &runtimeapi.ContainerStatus{ImageRef: "docker-pullable://busybox@" + id},
			want:   Image{Reference: "busybox@" + id},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, imageOf(tt.status, tt.extra)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestIsVM(t *testing.T) {
	for _, tt := range []struct {
		runtimeType, handler string
		want                 bool
	}{
		{},
		{runtimeType: "io.containerd.runc.v2"},
		{handler: "runc"},
		{handler: "crun"},
		{runtimeType: "io.containerd.runc.v2", handler: "kata"},
		{runtimeType: "io.containerd.runsc.v1", handler: "untrusted", want: true},
		{runtimeType: "/usr/local/bin/containerd-shim-runsc-v1", want: true},
		{runtimeType: "io.containerd.kata.v2", want: true},
		{runtimeType: "io.containerd.kata-qemu.v2", want: true},
		{handler: "gvisor", want: true},
		{handler: "kata-fc", want: true},
		{handler: "katana"},
	} {
		if got := isVM(tt.runtimeType, tt.handler); got != tt.want {
			t.Errorf("%q, %q: got %v, want %v", tt.runtimeType, tt.handler, got, tt.want)
		}
	}
}

func TestRestarts(t *testing.T) {
	for _, tt := range []struct {
		attempt    uint32
		annotation string
		want       int
	}{
		{},
		{attempt: 2, annotation: "1", want: 2},
		{attempt: 2, annotation: "7", want: 7},
		{attempt: 2, annotation: "-7", want: 2},
		{attempt: 2, annotation: "99999999999999999999", want: 2},
		{attempt: math.MaxUint32, want: math.MaxInt32},
	} {
		if got := restarts(tt.attempt, tt.annotation); got != tt.want {
			t.Errorf("%d, %q: got %d, want %d", tt.attempt, tt.annotation, got, tt.want)
		}
	}
}
