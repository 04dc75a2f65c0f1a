// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// spread is the median of some values and how far they go.
type spread struct{ low, median, high float64 }

// spreadOf gives zeros for no values.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	s := slices.SortedFunc(slices.Values(values), cmp.Compare[float64])
	mid := len(s) / 2
	median := s[mid]
	if len(s)%2 == 0 {
		median = (s[mid-1] + s[mid]) / 2
	}
	return spread{low: s[0], median: median, high: s[len(s)-1]}
}

// spreadBy is spreadOf one value of each of all.
func spreadBy[T any](all []T, value func(T) float64) spread {
	values := make([]float64, len(all))
	for i, one := range all {
		values[i] = value(one)
	}
	return spreadOf(values)
}

// machine tells on what the numbers were measured, and how busy it was.
func machine() string {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return "?"
		}
		return strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%d CPUs, Linux %s, load average %s", runtime.NumCPU(),
		read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"))
}
