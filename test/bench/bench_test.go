// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []float64
		want spread
	}{
		{name: "nothing"},
		{name: "one", in: []float64{3}, want: spread{3, 3, 3}},
		{name: "odd", in: []float64{9, 1, 2}, want: spread{1, 2, 9}},
		{name: "even", in: []float64{4, 1, 2, 9}, want: spread{1, 3, 9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := spreadOf(tt.in); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestSamplesOfAPage(t *testing.T) {
	const page = `# HELP a An a.
# TYPE a counter
a_total{container_id="x",destination="10.0.0.1:80"} 3
b{phase="read",le="+Inf"} 1.5e+01
c 7

broken
`
	type sample struct {
		Name, Labels string
		Value        float64
	}
	var got []sample
	eachSample([]byte(page), func(name, labels string, value float64) {
		got = append(got, sample{name, labels, value})
	})
	want := []sample{
		{"a_total", `container_id="x",destination="10.0.0.1:80"`, 3},
		{"b", `phase="read",le="+Inf"`, 15},
		{"c", "", 7},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLabelOf(t *testing.T) {
	const labels = `actual_destination="a",destination="b",map="edges"`
	for _, tt := range []struct {
		name, want string
		ok         bool
	}{
		{name: "actual_destination", want: "a", ok: true},
		{name: "destination", want: "b", ok: true},
		{name: "map", want: "edges", ok: true},
		{name: "phase"},
	} {
		if got, ok := labelOf(labels, tt.name); got != tt.want || ok != tt.ok {
			t.Errorf("%s: got %q, %v", tt.name, got, ok)
		}
	}
}

func TestNthAddress(t *testing.T) {
	first := netip.MustParseAddrPort("10.100.0.1:8080")
	for i, want := range map[int]string{0: "10.100.0.1:8080", 255: "10.100.1.0:8080", 1999: "10.100.7.208:8080"} {
		if got := nth(first, i).String(); got != want {
			t.Errorf("%d: got %s, want %s", i, got, want)
		}
	}
}

func TestCPUOfAProcess(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 20*time.Millisecond; { //nolint:revive // burn
	}
	after, err := cpuOf(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("%v, then %v, %v", before, after, err)
	}
	if _, err := cpuOf(1 << 22); err == nil {
		t.Error("a process that cannot be has CPU time")
	}
}

func TestServerTellsWhatItHasDone(t *testing.T) {
	asked, questions := io.Pipe()
	answers, said := io.Pipe()
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- serve([]string{addr}, asked, said) }()
	heard := json.NewDecoder(answers)
	var truth serverTruth
	if err := heard.Decode(&truth); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 128)
		if _, err := c.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	want := serverTruth{Accepted: 3, Ended: 3, Sent: 3 * 128, Received: 3 * 128}
	err = eventually(t.Context(), 10*time.Second, time.Millisecond, func() error {
		fmt.Fprintln(questions, "truth")
		if err := heard.Decode(&truth); err != nil {
			t.Fatal(err)
		}
		truth.CPU = 0
		if truth != want {
			return fmt.Errorf("%+v, want %+v", truth, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	questions.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
