// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"testing"
)

func TestReadUsages(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	if err := tr.ReadUsages(func(*Usage) {}); err != nil {
		t.Fatal(err)
	}
	for kind, told := range tr.DelaysTold() {
		if !told && Delay(kind) <= DelayThrashing {
			t.Errorf("delay %d is not told", kind)
		}
	}
}
