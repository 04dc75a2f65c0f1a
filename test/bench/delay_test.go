// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseSchedstat(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     time.Duration
		wantErr  bool
	}{
		{name: "waited", in: "1000 25000000 7\n", want: 25 * time.Millisecond},
		{name: "never waited", in: "1000 0 1\n"},
		{name: "short", in: "1000\n", wantErr: true},
		{name: "nothing", wantErr: true},
		{name: "no number", in: "1 x 2\n", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseSchedstat(tt.in)
			if got != tt.want || (err != nil) != tt.wantErr {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestShares(t *testing.T) {
	for _, tt := range []struct {
		n, parts int
		want     []int
	}{
		{10, 1, []int{10}},
		{10, 4, []int{2, 3, 2, 3}},
		{2, 3, []int{0, 1, 1}},
	} {
		if diff := cmp.Diff(tt.want, shares(tt.n, tt.parts)); diff != "" {
			t.Errorf("%d in %d parts (-want +got):\n%s", tt.n, tt.parts, diff)
		}
	}
}

func TestDelayRowIsGood(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  delayRow
		want bool
	}{
		{"counted", delayRow{told: 10, counted: delays{10.4, 9.6}}, true},
		{"counted in one series", delayRow{told: 10, counted: delays{delay: 9.6}}, true},
		{"not counted", delayRow{told: 10}, false},
		{"too little", delayRow{told: 10, counted: delays{9.4, 10}}, false},
		{"too much in the other series", delayRow{told: 10, counted: delays{10, 10.6}}, false},
		{"nothing to count", delayRow{}, false},
	} {
		if got := tt.row.good(); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}

func TestProcessesOfAShellTell(t *testing.T) {
	cpu, err := lastCPU()
	if err != nil {
		t.Fatal(err)
	}
	sh, err := startShell(t.Context(), nil, cpu)
	if err != nil {
		t.Fatal(err)
	}
	defer sh.stop()
	for _, order := range []string{"tell 3", "starve 2 1000000", "fork 5"} {
		if err := sh.say(order); err != nil {
			t.Fatal(err)
		}
	}
	if told, n, err := hearDelays(sh, 3); n != 5 || told < 0 || err != nil {
		t.Errorf("%d processes told %v, %v", n, told, err)
	}
}

func TestShellSpinsUntilItIsTold(t *testing.T) {
	sh, err := startShell(t.Context(), nil, anyCPU)
	if err != nil {
		t.Fatal(err)
	}
	defer sh.stop()
	var said []string
	for _, do := range []func() error{
		func() error { return sh.say("spin") },
		func() error { return sh.cmd.Process.Signal(unix.SIGUSR1) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		line, err := sh.hear()
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, line)
	}
	if want := []string{"spins", doneWord}; !slices.Equal(said, want) {
		t.Errorf("said %s, want %s", strings.Join(said, ", "), want)
	}
}
