// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// told lists the kinds of delays that are given.
func told(tasks Tasks) (kinds []Delay) {
	for i, d := range tasks.Delays {
		if d.OK {
			kinds = append(kinds, Delay(i))
		}
	}
	return kinds
}

func featureError(inv *Inventory, name string) error {
	for _, f := range inv.Status().Features {
		if f.Name == name {
			return f.Err
		}
	}
	return errors.New("no such feature")
}

var allDelays = []Delay{
	DelayCPU, DelayBlockIO, DelaySwapIn, DelayReclaim, DelayThrashing, DelayCompact, DelayWriteProtect, DelayIRQ,
}

func TestDelaysAreGivenWhileTheKernelAccountsThem(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	id := h.cgroup(containerA, 0)
	u := bpf.Usage{CgroupV2: id}
	for i := range u.Delays {
		u.Delays[i] = time.Second
	}
	for _, tt := range []struct {
		state   string // of kernel.task_delayacct
		want    []Delay
		wantErr error
		total   time.Duration
	}{
		{state: "0", want: []Delay{DelayCPU}, wantErr: errAccountingOff, total: time.Second},
		{state: "1", want: allDelays, total: 2 * time.Second},
		{state: "0", want: []Delay{DelayCPU}, wantErr: errAccountingOff, total: 3 * time.Second},
		{state: "1", want: allDelays, total: 4 * time.Second},
	} {
		h.accounting(tt.state)
		h.inv.checkDelayAccounting()
		h.kernel.use(u)
		got := h.tasks(containerA)
		if diff := cmp.Diff(tt.want, told(got)); diff != "" {
			t.Errorf("%s: delays (-want +got):\n%s", tt.state, diff)
		}
		for _, kind := range tt.want {
			if got.Delays[kind].V != tt.total {
				t.Errorf("%s: delay %d is %v, want %v", tt.state, kind, got.Delays[kind].V, tt.total)
			}
		}
		if err := featureError(h.inv, FeatureDelayAccounting); !errors.Is(err, tt.wantErr) {
			t.Errorf("%s: feature %v, want %v", tt.state, err, tt.wantErr)
		}
	}
	h.accounting("what?")
	h.inv.checkDelayAccounting()
	if err := featureError(h.inv, FeatureDelayAccounting); err == nil {
		t.Error("no error of a switch that says neither")
	}
	h.inv.delaysTold = [NumDelays]bool{DelayBlockIO: true, DelayCompact: true}
	h.accounting("1")
	h.inv.checkDelayAccounting()
	if diff := cmp.Diff([]Delay{DelayBlockIO, DelayCompact}, told(h.tasks(containerA))); diff != "" {
		t.Errorf("kinds that an old kernel knows (-want +got):\n%s", diff)
	}
	h.inv.hasTasks = false
	if got := told(h.tasks(containerA)); len(got) != 0 {
		t.Errorf("without the program %v", got)
	}
}

// Housekeeping sees that the administrator has switched it on.
func TestAccountingIsSwitchedOnMeanwhile(t *testing.T) {
	h := newTestHost(t, Options{})
	h.accounting("1")
	eventually(t, "it is on", func() bool {
		h.pass(cleanEvery)
		return featureError(h.inv, FeatureDelayAccounting) == nil
	})
}

func TestEnableDelayAccounting(t *testing.T) {
	for _, tt := range []struct {
		name    string
		state   string // "" for no such file
		enable  bool
		want    string
		wantErr error
	}{
		{name: "not asked for", state: "0\n", want: "0\n", wantErr: errAccountingOff},
		{name: "asked for", state: "0\n", enable: true, want: "1\n"},
		{name: "is on", state: "1\n", enable: true, want: "1\n"},
		{name: "not built in", enable: true, wantErr: errAccountingMissing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proc := t.TempDir()
			name := filepath.Join(proc, "sys/kernel/task_delayacct")
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755),
				os.WriteFile(filepath.Join(proc, "sys/kernel/osrelease"), []byte("6.18.0\n"), 0o644)); err != nil {
				t.Fatal(err)
			}
			if tt.state != "" {
				if err := os.WriteFile(name, []byte(tt.state), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			h := newTestHost(t, Options{ProcRoot: proc, EnableDelayAccounting: tt.enable})
			got, err := os.ReadFile(name)
			if string(got) != tt.want || tt.want != "" && err != nil {
				t.Errorf("switch %q, %v, want %q", got, err, tt.want)
			}
			if err := featureError(h.inv, FeatureDelayAccounting); !errors.Is(err, tt.wantErr) {
				t.Errorf("feature %v, want %v", err, tt.wantErr)
			}
		})
	}
}
