// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// monitorOf makes a monitor of the given disks in a folder of the test's own. What a disk answers is what ioctl says of the
// descriptor's file name.
func monitorOf(t *testing.T, disks map[string]*fakeDisk, files map[string]string) (*healthMonitor, *atomic.Int64) {
	t.Helper()
	all := map[string]string{"sys/block/loop0/size": "1"}
	for name := range disks {
		all["dev/"+name] = ""
		all["sys/block/"+name+"/device/vendor"] = "ATA     \n"
	}
	for name, content := range files {
		all[name] = content
	}
	m := newHealthMonitor(fakeHost(t, all))
	var clock atomic.Int64
	m.now = func() time.Time { return time.Unix(1e9, clock.Load()) }
	m.ioctl = func(fd int, request uintptr, arg unsafe.Pointer) (int, error) {
		file, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(fd)))
		if err != nil {
			return 0, err
		}
		return disks[filepath.Base(file)].ioctl(fd, request, arg)
	}
	t.Cleanup(m.close)
	return m, &clock
}

// settled reads until no question is under way.
func (m *healthMonitor) settled(t *testing.T) ([]Health, error) {
	t.Helper()
	if _, err := m.read(); err != nil {
		t.Logf("first: %v", err)
	}
	m.wg.Wait()
	return m.read()
}

func TestHealthOfDisks(t *testing.T) {
	m, _ := monitorOf(t, map[string]*fakeDisk{
		"nvme0n1":   {log: nvmeLog(0, 311, 3, 2, 1)},
		"nvme0c0n1": {log: nvmeLog(0, 311, 3, 2, 1)}, // a path, not a disk
		"sda":       goodDisk(),
		"sdb":       {}, // does not answer
		"sdc":       {err: errors.New("not to be asked")},
		"vda":       goodDisk(), // no way to ask
	}, map[string]string{"sys/block/sdc/device/vendor": "Dell    \n"})
	got, err := m.settled(t)
	if err != nil {
		t.Error(err)
	}
	want := []Health{
		{
			Disk: "nvme0n1", Passed: Some(true), Temperature: Some(38), PercentageUsed: Some(uint8(3)), MediaErrors: Some(uint64(1)),
			PowerOn: Some(2 * time.Hour),
		},
		{Disk: "sda", Passed: Some(true), Temperature: Some(38), PowerOn: Some(100 * time.Hour)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDisksAreNotAskedOften(t *testing.T) {
	disk := goodDisk()
	m, clock := monitorOf(t, map[string]*fakeDisk{"sda": disk}, nil)
	for range 10 {
		if _, err := m.settled(t); err != nil {
			t.Fatal(err)
		}
	}
	if len(disk.commands) != 3 {
		t.Errorf("asked with %d commands, want 3", len(disk.commands))
	}
	clock.Add(int64(askEvery))
	if got, _ := m.settled(t); len(got) != 1 || len(disk.commands) != 6 {
		t.Errorf("after %v: %d commands, %+v", askEvery, len(disk.commands), got)
	}
}

func TestSleepingDiskIsLeftAsleep(t *testing.T) {
	disk := goodDisk()
	m, clock := monitorOf(t, map[string]*fakeDisk{"sda": disk}, nil)
	if _, err := m.settled(t); err != nil {
		t.Fatal(err)
	}
	disk.power, disk.commands = 0, nil
	for range 10 { // longer than an answer is good for
		clock.Add(int64(askEvery))
		got, err := m.settled(t)
		want := []Health{{Disk: "sda", Passed: Some(true), PowerOn: Some(100 * time.Hour)}}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Fatalf("error %v (-want +got):\n%s", err, diff)
		}
	}
	for _, c := range disk.commands {
		if c != checkPowerMode.command {
			t.Fatalf("sent command %#x", c)
		}
	}
}

func TestSuspendedDiskIsNotOpened(t *testing.T) {
	m, _ := monitorOf(t, map[string]*fakeDisk{"sda": goodDisk(), "nvme0n1": {log: nvmeLog(0, 300, 0, 0, 0)}}, map[string]string{
		"sys/block/sda/device/power/runtime_status":            "suspended\n",
		"sys/block/nvme0n1/device/device/power/runtime_status": "suspended\n",
	})
	m.ioctl = func(int, uintptr, unsafe.Pointer) (int, error) { return 0, errors.New("not to be asked") }
	if got, err := m.settled(t); len(got) != 0 || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A disk is unplugged between the look at what it is and the question.
func TestDiskThatIsUnpluggedBeforeItIsAsked(t *testing.T) {
	m, _ := monitorOf(t, map[string]*fakeDisk{"sda": goodDisk()}, map[string]string{"sys/block/sda/device/power/control": "auto\n"})
	status := filepath.Join(m.sys("sda"), "device/power/runtime_status")
	if err := unix.Mkfifo(status, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.read(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(status, os.O_WRONLY, 0) // waits for its reader
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(m.sys("sda"), "device/vendor")), f.Close()); err != nil {
		t.Fatal(err)
	}
	m.wg.Wait()
}

// A disk that keeps a question is asked once, and nobody waits for it but the goroutine.
func TestHangingDisk(t *testing.T) {
	m, clock := monitorOf(t, map[string]*fakeDisk{"sda": goodDisk(), "nvme0n1": {log: nvmeLog(0, 300, 0, 0, 0)}}, nil)
	release := make(chan struct{})
	var asked atomic.Int32
	answers := m.ioctl
	m.ioctl = func(fd int, request uintptr, arg unsafe.Pointer) (int, error) {
		if request == sgIoctl {
			asked.Add(1)
			<-release
			return 0, unix.EIO
		}
		return answers(fd, request, arg)
	}
	deadline := time.Now().Add(10 * time.Second)
	for got, _ := m.read(); len(got) != 1 || got[0].Disk != "nvme0n1" || asked.Load() == 0; got, _ = m.read() {
		if time.Now().After(deadline) {
			t.Fatalf("got %+v", got)
		}
		time.Sleep(time.Millisecond)
	}
	for range 5 {
		clock.Add(int64(askEvery))
		if _, err := m.read(); err == nil {
			t.Error("no error of a disk that does not answer")
		} else if !isAnswer(err) {
			t.Errorf("counted again and again: %v", err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
	close(release)
	m.wg.Wait()
	_, err := m.read()
	if !errors.Is(err, unix.EIO) || isAnswer(err) {
		t.Errorf("got error %v, want %v, counted", err, unix.EIO)
	}
	if _, err = m.read(); !errors.Is(err, unix.EIO) || !isAnswer(err) {
		t.Errorf("the second time: got error %v, want %v, not counted", err, unix.EIO)
	}
}

func TestCloseDoesNotWaitForAHangingDisk(t *testing.T) {
	m, _ := monitorOf(t, map[string]*fakeDisk{"sda": goodDisk()}, nil)
	release, asked := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m.ioctl = func(int, uintptr, unsafe.Pointer) (int, error) {
		once.Do(func() { close(asked) })
		<-release
		return 0, unix.EIO
	}
	if _, err := m.read(); err != nil {
		t.Fatal(err)
	}
	<-asked
	begin := time.Now()
	m.close()
	if took := time.Since(begin); took > 5*closeWait {
		t.Errorf("waited for %v", took)
	}
	close(release)
	m.wg.Wait()
}

func TestDiskThatMayNotBeUsed(t *testing.T) {
	m, clock := monitorOf(t, map[string]*fakeDisk{"nvme0n1": {err: unix.EACCES}, "sda": {err: unix.EPERM}}, map[string]string{
		"sys/block/nvme1n1/size": "1", // without a device node
	})
	for range 3 {
		got, err := m.settled(t)
		if !errors.Is(err, fs.ErrPermission) || !errors.Is(err, fs.ErrNotExist) || !isAnswer(err) || len(got) != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
		clock.Add(int64(askEvery))
	}
	_, err := m.settled(t)
	t.Log(err)
}

func TestOldAnswersAreNoAnswers(t *testing.T) {
	disk := goodDisk()
	m, clock := monitorOf(t, map[string]*fakeDisk{"sda": disk}, nil)
	if got, err := m.settled(t); len(got) != 1 || err != nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	disk.err = unix.EIO
	for range 3 {
		clock.Add(int64(askEvery))
		if got, _ := m.settled(t); len(got) != 1 {
			t.Fatalf("got %+v", got)
		}
	}
	clock.Add(int64(askEvery))
	if got, _ := m.settled(t); len(got) != 0 {
		t.Errorf("got %+v after %v", got, 4*askEvery)
	}
}
