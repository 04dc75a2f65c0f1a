// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCgroupEventsTellTheWholeLife(t *testing.T) {
	h := findHost(t)
	tr := Open(Options{LegacyController: h.controller()})
	var mu sync.Mutex
	got := map[uint64][]CgroupEventKind{}
	paths := map[uint64]string{}
	done := make(chan error)
	go func() {
		done <- tr.CgroupEvents(func(e CgroupEvent) {
			mu.Lock()
			defer mu.Unlock()
			got[e.ID] = append(got[e.ID], e.Kind)
			paths[e.ID] = e.Path
			if e.Cut {
				t.Errorf("cut: %+v", e)
			}
		})
	}()
	c := h.makeCgroup(t, "life")
	startChild(t, c).kill()
	for _, dir := range c.dirs {
		removeCgroup(t, dir)
	}
	want := []CgroupEventKind{CgroupMade, CgroupEmptied, CgroupRemoved}
	for _, id := range []uint64{c.v2, c.v1} {
		if id == 0 {
			continue
		}
		eventually(t, "events of the cgroup", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return cmp.Equal(got[id], want)
		})
		if want := "/" + filepath.Base(c.dirs[0]); paths[id] != want {
			t.Errorf("path %q, want %q", paths[id], want)
		}
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOpenWithoutPrivileges(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	got := featuresAs(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	want := map[string]string{
		FeatureCgroupEvents: "not permitted: needs root, or CAP_BPF and CAP_PERFMON",
		FeatureTasks:        "not permitted: needs root, or CAP_BPF and CAP_PERFMON",
		FeatureDiskIO:       "not permitted: needs root, or CAP_BPF and CAP_PERFMON",
		FeatureFileWrites:   "not permitted: needs root, or CAP_BPF and CAP_PERFMON",
		FeatureNetwork:      "not permitted: needs root, or CAP_BPF and CAP_PERFMON",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("features (-want +got):\n%s", diff)
	}
}

func TestOpenWithTwoCapabilities(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	t.Setenv(cgroupRootEnv, findHost(t).unified)
	got := featuresAs(t, &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON},
	})
	want := map[string]string{
		FeatureCgroupEvents: "<nil>", FeatureTasks: "<nil>", FeatureDiskIO: "<nil>", FeatureFileWrites: "<nil>", FeatureNetwork: "<nil>", FeatureNetworkLive: "<nil>", FeatureNetworkAdopt: "<nil>",
		FeatureNetworkRefusals: "not permitted: needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
		FeatureNetworkResets:   "<nil>", FeatureNetworkNAT: "<nil>",
	}
	if _, err := os.Stat("/sys/module/nf_conntrack"); err != nil {
		want[FeatureNetworkNAT] = "not supported by this kernel: nf_conntrack is not loaded"
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("features (-want +got):\n%s", diff)
	}
}

func TestExplainNamesTheFix(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   error
		want error
	}{
		{name: "none"},
		{name: "refused", in: unix.EPERM, want: ErrNotPermitted},
		{name: "no such feature", in: ebpf.ErrNotSupported, want: ErrNotSupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := explain(tt.in); !errors.Is(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestOlderThanMin(t *testing.T) {
	for release, want := range map[string]bool{
		"5.10.0-35-cloud-amd64": true, "4.18.0-553.el8": true, "5.12.0": false, "6.18.44": false, "7.2": false, "odd": false,
	} {
		if got := olderThanMin(release); got != want {
			t.Errorf("%s: got %v", release, got)
		}
	}
}

func FuzzDecodeCgroupEvent(f *testing.F) {
	f.Add(make([]byte, 24))
	f.Add(make([]byte, 24+1024))
	f.Fuzz(func(t *testing.T, rec []byte) {
		ev, err := decodeCgroupEvent(rec)
		if err != nil && !errors.Is(err, errTruncated) {
			t.Errorf("unexpected error %v", err)
		}
		if len(ev.Path) > len(rec) {
			t.Errorf("path longer than the record")
		}
	})
}
