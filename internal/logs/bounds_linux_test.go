// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
)

// rss is the memory of this process that is resident, in bytes.
func rss(t testing.TB) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// used is the CPU time of this process.
func used(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Among ten thousand files are a pipe, a socket and a directory, and a file comes and goes. EBPFCONTAINER_LOGS has it measured for
// how long that says what they cost when nobody writes.
func TestTenThousandFiles(t *testing.T) {
	const files, owners = 10_000, 100
	dir := t.TempDir()
	store := &memory{}
	before, descriptorsBefore := rss(t), descriptors(t)
	l := open(t, Options{Store: store, CheckpointEvery: time.Second})
	defer closeLogs(t, l)
	fifo, socket := filepath.Join(dir, "fifo"), filepath.Join(dir, "socket")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for i, path := range []string{fifo, socket, dir, filepath.Join(dir, "none"), filepath.Join(dir, "app0.log", "none")} {
		l.Owner(t.Context(), fmt.Sprint("/docker/", i)).Follow(plain(path))
	}
	all := make([]*Owner, owners)
	for i := range all {
		all[i] = l.Owner(t.Context(), fmt.Sprint("/docker/", i))
	}
	for i := range files {
		path := filepath.Join(dir, fmt.Sprintf("app%d.log", i))
		appendTo(t, path, fmt.Sprintf("INFO line one of file %d", i))
		all[i%owners].Follow(plain(path))
	}
	sum := func() (n uint64) {
		for _, o := range all {
			n += messages(o)
		}
		return n
	}
	until(t, "a line of each", func() bool { return sum() == files })
	for i := range files {
		appendTo(t, filepath.Join(dir, fmt.Sprintf("app%d.log", i)), fmt.Sprintf("INFO line two of file %d", i))
	}
	until(t, "another one of each", func() bool { return sum() == 2*files })
	if n := descriptors(t) - descriptorsBefore; n > 1024+64 {
		t.Errorf("%d descriptors are open", n)
	}
	if s := l.Stats(); s.Files.Errors == 0 || s.Files.Invalid+s.Files.Cut != 0 {
		t.Errorf("%+v", s.Files)
	}
	if os.Getenv("EBPFCONTAINER_LOGS") == "" {
		return
	}
	time.Sleep(15 * time.Second) // until all are idle
	writes, cpu, began := store.bytes(), used(t), time.Now()
	time.Sleep(tortureTime(t))
	took := time.Since(began)
	runtime.GC()
	debug.FreeOSMemory()
	t.Logf("%d idle files: %.2f%% of a CPU, %d descriptors, %d MiB more, %.0f KiB/s to the store", files,
		100*float64(used(t)-cpu)/float64(took), descriptors(t)-descriptorsBefore, (rss(t)-before)>>20,
		float64(store.bytes()-writes)/1024/took.Seconds())
}

// TestAFileThatMayNotBeRead runs as a user who may not read it.
func TestAFileThatMayNotBeRead(t *testing.T) {
	const env = "EBPFCONTAINER_AS_NOBODY"
	if os.Geteuid() == 0 && os.Getenv(env) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestAFileThatMayNotBeRead$", "-test.v")
		cmd.Env = append(os.Environ(), env+"=1", "TMPDIR=/tmp")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	secret, app := filepath.Join(dir, "secret.log"), filepath.Join(dir, "app.log")
	appendTo(t, secret, "INFO one")
	appendTo(t, app, "INFO one")
	if err := os.Chmod(secret, 0); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{})
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), "a")
	o.Follow(plain(secret))
	o.Follow(plain(app))
	until(t, "the other file, and an error", func() bool { return messages(o) == 1 && l.Stats().Files.Errors > 0 })
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "it may be read", func() bool { return messages(o) == 2 })
}

// TestMemoryWhileMuchIsRead reads as many GiB as EBPFCONTAINER_LOGS_GIB says: a file of 64 MiB, over and over.
func TestMemoryWhileMuchIsRead(t *testing.T) {
	gib, err := strconv.Atoi(os.Getenv("EBPFCONTAINER_LOGS_GIB"))
	if err != nil {
		t.Skip("EBPFCONTAINER_LOGS_GIB is not set")
	}
	var b strings.Builder
	lines := 0
	for b.Len() < 64<<20 {
		fmt.Fprintf(&b, "2026-01-02T03:04:05Z INFO request %d of user u%d for /api/v1/orders/%d took %d ms, %d bytes were sent to 192.0.2.%d\n",
			lines, lines%1000, lines*7, lines%313, lines*31, lines%250)
		if lines++; lines%100 == 0 {
			fmt.Fprintf(&b, "2026-01-02T03:04:05Z ERROR request %d failed: connection to 192.0.2.%d was refused\n", lines, lines%250)
			lines++
		}
	}
	text, dir := b.String(), t.TempDir()
	debug.FreeOSMemory()
	before := rss(t)
	path := filepath.Join(dir, "app.log")
	l := open(t, Options{Store: &memory{}, CheckpointEvery: time.Second})
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), "a")
	o.Follow(Source{Name: path, Path: path, Start: logtail.Beginning()})
	rounds := gib << 10 / 64
	cpu := used(t)
	var first, most int64
	for round := range rounds {
		head := fmt.Sprintf("2026-01-02T03:04:05Z INFO file %d begins, which is another one than before\n", round)
		f, err := os.Create(path + ".new")
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(head)
		_, err2 := f.WriteString(text)
		if err := errors.Join(err, err2, f.Close()); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil { // what was there has been read
			t.Fatal(err)
		}
		want := uint64(round+1) * uint64(lines+1)
		for end := time.Now().Add(time.Minute); l.Stats().Files.Lines < want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%+v", l.Stats())
			}
		}
		now := rss(t) - before
		if most = max(most, now); round == rounds/10 {
			first = now
		}
		if round == rounds/10 || round == rounds/2 || round == rounds-1 {
			t.Logf("%d MiB are read: %d MiB more are resident", (round+1)*64, now>>20)
		}
	}
	t.Logf("at most %d MiB; %.2f s of CPU time for %d M lines, with what writes them", most>>20, (used(t) - cpu).Seconds(), rounds*lines/1_000_000)
	if most > first*3/2+16<<20 {
		t.Errorf("memory grows: %d MiB after a tenth, up to %d MiB", first>>20, most>>20)
	}
}
