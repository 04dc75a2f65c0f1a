// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCandidates(t *testing.T) {
	const (
		disk    = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
		docker  = "2 0 0:50 / / rw - overlay overlay rw,lowerdir=l/A:l/B,upperdir=ab12/diff,workdir=ab12/work\n"
		kubelet = docker + "3 2 8:1 /var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/logs /var/log rw - ext4 /dev/sda1 rw\n"
		nested  = docker + "4 2 0:51 / /var/log/app rw - overlay overlay rw,lowerdir=/l,upperdir=/run/upper,workdir=/run/work\n"
		part    = "5 0 0:52 /sub / rw - overlay overlay rw,lowerdir=/l,upperdir=/a/b,workdir=/w\n"
		old     = `6 0 0:53 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/a/x\134:y/b,workdir=/w` + "\n"
	)
	sda := unix.Mkdev(8, 1)
	for _, tt := range []struct {
		name, table, path string
		cut               bool
		device            uint64
		want              string // mount, path, and ! if it is sure; with a space after each
	}{
		{name: "disk", table: disk, device: sda, path: "/var/log/x.log", want: "1 /var/log/x.log! "},
		{name: "other disk", table: disk, device: 1, path: "/var/log/x.log"},
		{name: "elsewhere", table: disk, device: sda, path: "/var/lib/var/log/x.log"},
		{name: "similar name", table: disk, device: sda, path: "/var/logs/x.log"},
		{name: "the root", table: disk, device: sda, path: "/var/log"},
		{name: "no name", table: disk, device: sda, path: "/var/log/"},
		{name: "not clean", table: disk, device: sda, path: "/var/log/../x"},
		{name: "disk, cut", table: disk, device: sda, path: "log/a/x.log", cut: true, want: "1 /var/log/a/x.log "},
		{name: "disk, cut with a slash", table: disk, device: sda, path: "/log/a/x.log", cut: true, want: "1 /var/log/a/x.log "},
		{name: "disk, cut too much", table: disk, device: sda, path: "a/x.log", cut: true},
		{name: "layer of Docker", table: docker, path: "/var/lib/docker/overlay2/ab12/diff/var/log/x.log", want: "2 /var/log/x.log! "},
		{name: "layer, disk of its own", table: docker, path: "/ab12/diff/var/log/x.log", want: "2 /var/log/x.log! "},
		{name: "layer of another", table: docker, path: "/var/lib/docker/overlay2/cd34/diff/var/log/x.log", want: "2 /var/log/x.log "},
		{name: "layer, beside", table: docker, path: "/var/lib/docker/overlay2/ab12/diff2/var/log/x.log"},
		{name: "layer, not below", table: docker, path: "/var/lib/docker/overlay2/ab12/diff/var/x.log"},
		{name: "layer, cut", table: docker, cut: true, path: "ab12/diff/var/log/x.log", want: "2 /var/log/x.log! "},
		{name: "layer, cut more", table: docker, cut: true, path: "diff/var/log/x.log", want: "2 /var/log/x.log "},
		{name: "layer, cut before", table: docker, cut: true, path: "overlay2/ab12/diff/var/log/x.log", want: "2 /var/log/x.log! "},
		{
			name: "layer that was mounted over", table: kubelet, path: "/var/lib/docker/overlay2/ab12/diff/var/log/x.log",
			want: "2 /var/log/x.log! ", // has another mount's id there
		},
		{
			name: "volume", table: kubelet, device: sda,
			path: "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/logs/a/x.log", want: "3 /var/log/a/x.log! ",
		},
		{name: "overlay below", table: nested, path: "/upper/x.log", want: "4 /var/log/app/x.log! "},
		{name: "overlay below, part of a disk", table: nested, path: "/y/upper/x.log", want: "4 /var/log/app/x.log "},
		{name: "part of an overlay", table: part, path: "/a/b/sub/var/log/x.log", want: "5 /var/log/x.log! "},
		{name: "other part of an overlay", table: part, path: "/a/b/var/log/x.log"},
		{name: "name with a colon", table: old, path: "/a/x:y/b/var/log/x.log", want: "6 /var/log/x.log 6 /var/log/x.log! "},
		{name: "another root directory", path: "/jail/var/log/x.log", want: "99 /var/log/x.log "},
		{
			name: "another root directory, twice", path: "/var/log/jail/var/log/x.log",
			want: "99 /var/log/jail/var/log/x.log 99 /var/log/x.log ",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			roots := rootsOf("/var/log")
			mounts, _, err := selectMounts(strings.NewReader(tt.table), roots)
			if err != nil {
				t.Fatal(err)
			}
			ts := newTargets(mounts, roots, viewKey{mount: 99})
			var got, last string
			for _, c := range ts.candidates(&Write{Device: tt.device, Path: tt.path, Cut: tt.cut}) {
				sure := map[bool]string{true: "!"}[c.sure]
				if one := fmt.Sprint(c.mount, " ", c.path, sure, " "); one != last { // the same may be found in two ways
					got += one
					last = one
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCandidatesAreBounded(t *testing.T) {
	ts := newTargets(nil, rootsOf(""), viewKey{})
	if n := len(ts.candidates(&Write{Path: strings.Repeat("/x", 2000)})); n != maxCandidates {
		t.Errorf("%d candidates", n)
	}
}

func TestUpperDirs(t *testing.T) {
	for in, want := range map[string][]string{
		"":         nil,
		"/a//b/":   {"/a/b"},
		`/a\:b\\c`: {`/a\:b\\c`, `/a:b\c`},
		`/a\,b\`:   {`/a\,b\`, `/a,b\`},
	} {
		if d := cmp.Diff(want, upperDirs(in)); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
}
