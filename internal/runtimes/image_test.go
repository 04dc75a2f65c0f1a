// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const imageDigest = "3f57d9401f8d42f986df300f0c69192fc41da28ccc8d797829467780db3dd741"

func TestImagesAreNamedAsTheyWereAskedFor(t *testing.T) {
	const digest, id = "sha256:" + imageDigest, "sha256:" + imageDigest
	for _, tt := range []struct {
		image Image
		name  string
		tags  []string
	}{
		{Image{}, "", nil},
		{Image{"busybox", id}, "busybox", []string{"latest"}},
		{Image{"busybox:1.36", id}, "busybox", []string{"1.36"}},
		{Image{"docker.io/library/busybox:latest", id}, "docker.io/library/busybox", []string{"latest"}},
		{Image{"gcr.io/opentelemetry/operator", id}, "gcr.io/opentelemetry/operator", []string{"latest"}},
		{Image{"registry.example:5000/team/app:1.2", id}, "registry.example:5000/team/app", []string{"1.2"}},
		{Image{"registry.example:5000/team/app", id}, "registry.example:5000/team/app", []string{"latest"}},
		{Image{"localhost:5000/app", id}, "localhost:5000/app", []string{"latest"}},
		{Image{"[2001:db8::1]:5000/app:v1", id}, "[2001:db8::1]:5000/app", []string{"v1"}},
		{Image{"localhost/app:dev", id}, "localhost/app", []string{"dev"}},
		{Image{"nginx@" + digest, id}, "nginx", nil},
		{Image{"nginx:1.27@" + digest, id}, "nginx", []string{"1.27"}},
		{Image{"redis:3.0.6@sha256:" + strings.Repeat("6a", 32), id}, "redis", []string{"3.0.6"}},
		{Image{id, id}, "", nil},
		{Image{id, ""}, "", nil},
		{Image{imageDigest, ""}, "", nil},
		{Image{"3f57d9401f8d", id}, "", nil},
		{Image{"3f57d94", imageDigest}, "", nil},
		{Image{"sha256:3f57d9401f8d", id}, "", nil},
		{Image{"3f57d9", id}, "3f57d9", []string{"latest"}},
		{Image{"cafecafe", id}, "cafecafe", []string{"latest"}},
		{Image{"Team/App:1", id}, "Team/App:1", nil},
		{Image{"app:", id}, "app:", nil},
		{Image{"app:1:2", id}, "app:1:2", nil},
		{Image{"\xff", id}, "\xff", nil},
		{Image{"a b", id}, "a b", nil},
	} {
		name, tags := tt.image.Split()
		if diff := cmp.Diff(tt.name, name) + cmp.Diff(tt.tags, tags); diff != "" {
			t.Errorf("%+v: %s", tt.image, diff)
		}
	}
}

func FuzzImage(f *testing.F) {
	f.Add("registry.example:5000/team/app:1.2@sha256:"+imageDigest, "")
	f.Add("3f57d94", imageDigest)
	f.Add(":", "sha256:")
	f.Fuzz(func(t *testing.T, ref, id string) {
		name, tags := Image{Reference: ref, ID: id}.Split()
		if !strings.HasPrefix(ref, name) || len(tags) > 1 {
			t.Fatalf("%q has the name %q and the tags %q", ref, name, tags)
		}
		if len(tags) == 1 && tags[0] != "latest" && !strings.HasPrefix(ref, name+":"+tags[0]) {
			t.Fatalf("%q has the name %q and the tag %q", ref, name, tags[0])
		}
	})
}
