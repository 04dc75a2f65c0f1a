// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDelayAccounting reads from a disk while the kernel does not account delays, and again when a collector has switched
// that on. It is switched for the whole host and put back at the end.
func TestDelayAccounting(t *testing.T) {
	requireRoot(t, "runc", "busybox", "prometheus")
	ctx := testContext(t)
	binary := collectorBinary(ctx, t)
	rootfs := makeRootfs(t, buildLoad(ctx, t))
	writeToDisk(t, filepath.Join(rootfs, "data"), 16<<20)
	readers := make([]container, 6) // the first one without accounting
	config := collectorConfig{interval: time.Second}
	for i := range readers {
		readers[i] = dockerContainer(containerID(fmt.Sprint("reader ", i)))
		config.containers = append(config.containers, readers[i].path)
	}
	switchDelayAccounting(t, "0")
	for _, id := range identities(t) {
		config.identities = append(config.identities, id.name)
	}
	passive := startCollector(ctx, t, binary, config)
	passive.wantDelayAccounting(ctx, t, `reason="switched_off"`, 0)
	if read := readFromDisk(ctx, t, readers[0], rootfs); read.WaitSeconds != 0 {
		t.Fatalf("the kernel accounts delays, somebody else has switched that on: %+v", read)
	}
	passive.wantCPUDelayAlone(ctx, t, readers[0].id)

	config.delays = true
	active := startCollector(ctx, t, binary, config)
	active.wantDelayAccounting(ctx, t, `reason=""`, 1)
	if now := hostFile(t, delayAccounting); now != "1" {
		t.Fatalf("%s is %s, want the collector to have switched it on", delayAccounting, now)
	}
	prom := startPrometheus(ctx, t, active.targets)
	plausible := false
	for i := 1; i < len(readers) && !plausible; i++ {
		before := active.delayAnomalies(ctx, t)
		read := readFromDisk(ctx, t, readers[i], rootfs)
		if read.WaitSeconds == 0 {
			t.Skip("the files of this test are on no disk for which one has to wait")
		}
		// Linux 6.12 and later note the begin of a wait with another task if the scheduler delays the dequeueing of the one
		// that waits; at its end it is then accounted from an earlier begin, at worst from that of the host.
		plausible = read.WaitSeconds <= read.Seconds && active.delayAnomalies(ctx, t) == before
		checkDiskDelay(ctx, t, prom, readers[i], read, plausible)
	}
	if !plausible {
		t.Log("the kernel has given no plausible delay to compare with")
	}
	// Who did not ask for it has it too, soon.
	passive.wantDelayAccounting(ctx, t, `reason=""`, 1)
	prom.checkScrapes(ctx, t)
}

// wantCPUDelayAlone waits until the collector shows of a container no delays but those of the CPU.
func (c *collector) wantCPUDelayAlone(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	for identity, target := range c.targets {
		eventually(ctx, t, 10*time.Second, "delays without accounting in identity "+identity, func() error {
			body, err := get(ctx, "http://"+target+"/metrics")
			if err != nil {
				return err
			}
			shown := grep(string(body), id)
			if kinds := grep(grep(shown, "container_resources_delay_seconds_total{"), "kind="); strings.Count(kinds, "\n") != 1 ||
				!strings.Contains(kinds, `kind="cpu"`) || !strings.Contains(shown, "container_resources_cpu_delay_seconds_total{") {
				return fmt.Errorf("want those of the CPU alone: %s", kinds)
			}
			// No number at all rather than zero.
			if blkio := grep(shown, "container_resources_disk_delay_seconds_total"); blkio != "" {
				t.Fatal(blkio)
			}
			return nil
		})
	}
}

// checkDiskDelay compares with what the reader says of itself, where that is plausible.
func checkDiskDelay(ctx context.Context, t *testing.T, prom *prometheus, who container, read readTruth, plausible bool) {
	t.Helper()
	for _, id := range identities(t) {
		sel := id.selector(who)
		eventually(ctx, t, 10*time.Second, "delays in identity "+id.name, func() error {
			got, err := prom.value(ctx, fmt.Sprintf("last_over_time(container_resources_disk_delay_seconds_total{%s}[5m])", sel))
			if err != nil {
				return err
			}
			// The truth has steps of 10 ms, and is silent about runc.
			least, most := read.WaitSeconds, 1.05*read.WaitSeconds+0.03
			if !plausible {
				least, most = 0, read.Seconds+1
			}
			if got < least || got > most {
				return fmt.Errorf("got %v s, want %v to %v s", got, least, most)
			}
			t.Logf("got %v s: %+v", got, read)
			return prom.wantValue(ctx, fmt.Sprintf("last_over_time(container_resources_delay_seconds_total{%s,kind='blkio'}[5m])", sel), got)
		})
	}
}

const delayAccounting = "/proc/sys/kernel/task_delayacct"

// switchDelayAccounting sets the kernel's switch and puts it back when the test ends. Other tests that do so wait
// meanwhile.
func switchDelayAccounting(t *testing.T, to string) {
	t.Helper()
	f, err := os.OpenFile(delayAccounting, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("a kernel without " + delayAccounting + ": Linux 5.14")
	}
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	was := hostFile(t, delayAccounting)
	t.Cleanup(func() {
		if err := errors.Join(os.WriteFile(delayAccounting, []byte(was), 0), f.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(delayAccounting, []byte(to), 0); err != nil {
		t.Fatal(err)
	}
}

// keepDelayAccounting has tests that switch it wait until this one ends: series of delays do not end when it is switched
// off.
func keepDelayAccounting(t *testing.T) {
	t.Helper()
	f, err := os.Open(delayAccounting)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
}

// wantDelayAccounting waits until the collector says of each of its receivers whether the kernel accounts delays.
func (c *collector) wantDelayAccounting(ctx context.Context, t *testing.T, reason string, value int) {
	t.Helper()
	eventually(ctx, t, 30*time.Second, "feature "+reason, func() error {
		own, err := get(ctx, "http://"+c.own+"/metrics")
		if err != nil {
			return err
		}
		lines := grep(string(own), `feature_enabled{feature="delay_accounting"`)
		if right := strings.Count(grep(lines, reason), fmt.Sprintf("} %d\n", value)); right != len(c.targets) {
			return fmt.Errorf("want %s %d: %s", reason, value, lines)
		}
		return nil
	})
}

// delayAnomalies is how many delays the collector's receivers have left out.
func (c *collector) delayAnomalies(ctx context.Context, t *testing.T) string {
	t.Helper()
	own, err := get(ctx, "http://"+c.own+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return grep(string(own), "otelcol_ebpf_container_delay_anomalies{")
}

// readFromDisk reads the file /data in a container, and returns what the process says of that.
func readFromDisk(ctx context.Context, t *testing.T, who container, rootfs string) readTruth {
	t.Helper()
	c := startRunc(t, who.id, rootfs, who.cgroup.path, "", script("/load read /data; exit 0")...)
	c.process.wait(ctx, t)
	read := truths[readTruth](t, c.process.output(t))
	if len(read) != 1 || read[0].Bytes == 0 {
		t.Fatalf("the load did not do its work: %s", c.process.output(t))
	}
	return read[0]
}

// writeToDisk makes a file that is on the disk when this returns.
func writeToDisk(t *testing.T, name string, size int) {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.Read(b) // never fails
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}
