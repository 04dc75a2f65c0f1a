// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// netns is a network namespace with an address and a default route, and no way out: nobody answers at the other end
// of its only link.
type netns struct {
	name   string
	mounts string // a mount namespace to go with it, "" is the test's
}

// path is where `ip netns` keeps the namespace.
func (n netns) path() string { return "/run/netns/" + n.name }

// makeNetns makes the namespace and removes it when the test ends.
func makeNetns(ctx context.Context, t *testing.T) netns {
	t.Helper()
	n := netns{name: fmt.Sprintf("e2e%d", os.Getpid())}
	run(ctx, t, "ip", "netns", "add", n.name)
	t.Cleanup(func() {
		// Takes the veth pair along.
		if _, err := output(exec.Command("ip", "netns", "delete", n.name)); err != nil {
			t.Error(err)
		}
	})
	// Both ends are made inside: the main namespace gets no interface, address or route from us.
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "e2e0", "type", "veth", "peer", "name", "e2e1"},
		{"link", "set", "e2e1", "up"},
		{"link", "set", "e2e0", "up"},
		{"addr", "add", "198.18.255.2/30", "dev", "e2e0"},
		{"route", "add", "default", "via", "198.18.255.1"},
	} {
		run(ctx, t, "ip", append([]string{"-netns", n.name}, args...)...)
	}
	return n
}

// inside returns the command that runs command in the namespace, with the host's file systems: `ip netns exec` would
// mount another /sys, without the cgroups.
func (n netns) inside(command ...string) []string {
	words := []string{"nsenter", "--net=" + n.path()}
	if n.mounts != "" {
		words = append(words, "--mount="+n.mounts)
	}
	return append(words, command...)
}
