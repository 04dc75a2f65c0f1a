// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

func TestRTTAloneAndSwitchedOff(t *testing.T) {
	snapshot := testSnapshot()
	snapshot.Containers = snapshot.Containers[:1]
	cfg := createDefaultConfig().(*Config)
	withAll := testWriter(cfg).write(snapshot)
	cfg.Metrics.ContainerNetTCPRtt.Enabled = false
	if got, want := testWriter(cfg).write(snapshot).DataPointCount(), withAll.DataPointCount()-1; got != want {
		t.Errorf("got %d points without the histogram, want %d", got, want)
	}
	cfg.Metrics = metadata.MetricsConfig{}
	cfg.Metrics.ContainerNetTCPRtt.Enabled = true
	alone := testWriter(cfg).write(snapshot)
	if n := alone.DataPointCount(); n != 1 {
		t.Fatalf("got %d points, want that of the only edge with samples", n)
	}
	got, want := alone.ResourceMetrics().At(0), withAll.ResourceMetrics().At(0)
	if diff := cmp.Diff(want.Resource().Attributes().AsRaw(), got.Resource().Attributes().AsRaw()); diff != "" {
		t.Errorf("resource (-want +got):\n%s", diff)
	}
	if got, want := got.ScopeMetrics().At(0).Scope().Name(), want.ScopeMetrics().At(0).Scope().Name(); got != want {
		t.Errorf("got scope %q, want %q", got, want)
	}
}

// The generated documentation is of what is given.
func TestRTTIsTheDocumentedMetric(t *testing.T) {
	b, err := os.ReadFile("metadata.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Metrics map[string]struct {
			Attributes        []string
			Description, Unit string
		}
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	m := newRTTBuilder().data
	want := file.Metrics[m.Name()]
	if m.Description() != want.Description || m.Unit() != want.Unit {
		t.Errorf("got %q in %q, want %q in %q", m.Description(), m.Unit(), want.Description, want.Unit)
	}
}
