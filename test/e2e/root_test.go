// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// requireRoot skips the test, with the reason, when it does not run as root or lacks a tool. With
// EBPFCONTAINER_REQUIRE_ROOT_TESTS=1, as CI sets it, either is a failure.
func requireRoot(t *testing.T, tools ...string) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "not root"
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil && missing == "" {
			missing = "no " + tool + " in PATH"
		}
	}
	switch {
	case missing == "":
	case os.Getenv("EBPFCONTAINER_REQUIRE_ROOT_TESTS") == "1":
		t.Fatalf("required by EBPFCONTAINER_REQUIRE_ROOT_TESTS: %s", missing)
	default:
		t.Skip(missing)
	}
}

// testContext ends early enough before the test binary's own time limit, which runs no cleanup, for the cleanup to run.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-30*time.Second))
		t.Cleanup(cancel)
	}
	return ctx
}

// eventually calls check until it returns nil. It fails the test with check's last error when that takes too long.
func eventually(ctx context.Context, t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; {
		err := check()
		if err == nil {
			t.Logf("%s: after %v", what, time.Since(start).Round(time.Millisecond))
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, time.Since(start).Round(time.Millisecond), err)
		case <-tick.C:
		}
	}
}

// containerID returns a runtime-like container id of 64 hexadecimal digits, a different one for every run.
func containerID(name string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", name, os.Getpid(), time.Now().UnixNano()))
	return hex.EncodeToString(sum[:])
}
