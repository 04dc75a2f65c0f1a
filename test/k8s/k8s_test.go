// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestKubernetes runs all on one cluster, which is most of the work.
func TestKubernetes(t *testing.T) {
	programs := os.Getenv("EBPFCONTAINER_K8S")
	if programs == "" {
		t.Skip("run by make test-k8s")
	}
	binary := os.Getenv("OTELCOL_BIN")
	if binary == "" {
		var err error
		if binary, err = filepath.Abs("../../otelcol-custom/otelcol-custom"); err != nil {
			t.Fatal(err)
		}
	}
	c := startCluster(t, programs, binary)
	applyManifests(t, c, binary)
	w := createPods(t, c)
	col := startCollector(t, c, binary, w.include())
	w.createCrashing(t, c)

	t.Run("truth of the runtime", func(t *testing.T) { checkCRI(t, c, w) })
	t.Run("names in semconv", func(t *testing.T) { checkSemconv(t, col, w) })
	t.Run("names in coroot", func(t *testing.T) { checkCoroot(t, col, w) })
	t.Run("no other names", func(t *testing.T) { checkNoOthers(t, col, w) })
	t.Run("what the API server knows", func(t *testing.T) { checkAttributes(t, col, w) })
	t.Run("restarts", func(t *testing.T) { checkRestarts(t, col, w) })
	t.Run("records of exits", func(t *testing.T) { checkRecords(t, col, w) })
	t.Run("logs", func(t *testing.T) { checkLogs(t, col, w) })
	t.Run("volumes", func(t *testing.T) { checkVolumes(t, col, w) })
	t.Run("DaemonSet", func(t *testing.T) { checkDaemonSet(t, c, w) })
}
