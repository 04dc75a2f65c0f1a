// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const journald = "/lib/systemd/systemd-journald"

// daemon is a journald of the test's own, in a mount namespace where /run and /var/log are empty.
type daemon struct {
	t    *testing.T
	pid  int
	root string
	conn net.Conn
	sent int
}

func startJournald(t *testing.T) *daemon {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes a mount namespace")
	}
	needTools(t, journald, "unshare", "mount")
	// Files of 512 KiB, the least that journald makes, hold about a thousand entries.
	const script = `set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d
printf '[Journal]\nStorage=auto\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\nRateLimitIntervalSec=0\nSystemMaxFileSize=512K\nSystemMaxFiles=3\n' > /run/systemd/journald.conf.d/test.conf
exec ` + journald
	cmd := exec.Command("unshare", "-m", "sh", "-c", script)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait()
	})
	d := &daemon{t: t, pid: cmd.Process.Pid, root: fmt.Sprintf("/proc/%d/root", cmd.Process.Pid)}
	d.eventually("journald's socket", func() bool {
		conn, err := net.Dial("unixgram", d.root+"/run/systemd/journal/socket")
		d.conn = conn
		return err == nil
	})
	t.Cleanup(func() { d.conn.Close() })
	return d
}

func (d *daemon) eventually(what string, done func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// send writes entries whose field N counts on, some of them long.
func (d *daemon) send(n int) {
	d.t.Helper()
	for range n {
		filler := ""
		if d.sent%50 == 0 {
			filler = fmt.Sprintf("LONG=%02000d\n", d.sent)
		}
		if _, err := fmt.Fprintf(d.conn, "MESSAGE=line %d\nN=%d\n%s", d.sent, d.sent, filler); err != nil {
			d.t.Fatal(err)
		}
		d.sent++
	}
}

func (d *daemon) open(checkpoint string) *Reader {
	d.t.Helper()
	r, err := Open(Options{Root: d.root, Checkpoint: checkpoint, Fields: []string{"N", "LONG"}})
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

// expect reads the entries from..to-1 and no others that the test wrote.
func (d *daemon) expect(r *Reader, from, to int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	for from < to {
		e, err := r.Next(ctx)
		if err != nil {
			d.t.Fatalf("waiting for %d of %d: %v; %+v, %v", from, to, err, r.Stats(), r.Refused())
		}
		n := string(e.Field("N"))
		if n == "" {
			continue // journald's own
		}
		if n != strconv.Itoa(from) || from%50 == 0 && string(e.Field("LONG")) != fmt.Sprintf("%02000d", from) {
			d.t.Fatalf("got N=%s LONG=%s, want %d", n, e.Field("LONG"), from)
		}
		from++
	}
}

func (d *daemon) signal(sig syscall.Signal) {
	d.t.Helper()
	if err := syscall.Kill(d.pid, sig); err != nil {
		d.t.Fatal(err)
	}
}

func TestReaderFollowsJournaldThroughFlushRotationAndVacuum(t *testing.T) {
	d := startJournald(t)
	d.send(100)
	d.eventually("the first file", func() bool {
		files, _ := filepath.Glob(d.root + "/run/log/journal/*/system.journal")
		return len(files) == 1
	})
	all, err := Open(Options{Root: d.root, Start: Beginning, Fields: []string{"N", "LONG"}})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	d.expect(all, 0, 100)

	r := d.open("")
	d.send(300)
	d.expect(all, 100, 400)
	d.expect(r, 100, 250)
	checkpoint := r.Checkpoint()
	r.Close()

	// What the volatile journal has goes to /var: 250 of it are known, 150 are not.
	if err := os.MkdirAll(d.root+"/var/log/journal", 0o755); err != nil {
		t.Fatal(err)
	}
	d.signal(syscall.SIGUSR1)
	d.eventually("flush", func() bool {
		_, err := os.Stat(d.root + "/run/systemd/journal/flushed")
		return err == nil
	})
	d.send(100)
	d.expect(all, 400, 500)
	r = d.open(checkpoint)
	d.expect(r, 250, 500)

	archived := map[string]bool{}
	for i := range 20 {
		from := d.sent
		d.send(400)
		if i%5 == 4 {
			d.signal(syscall.SIGUSR2) // rotate
		}
		if i%3 != 2 {
			d.expect(r, from, d.sent)
		} else { // restart in the middle
			d.expect(r, from, from+200)
			checkpoint := r.Checkpoint()
			r.Close()
			d.send(200)
			r = d.open(checkpoint)
			d.expect(r, from+200, d.sent)
		}
		d.expect(all, from, d.sent)
		files, _ := filepath.Glob(d.root + "/var/log/journal/*/system@*.journal")
		for _, f := range files {
			archived[f] = true
		}
	}
	files, _ := filepath.Glob(d.root + "/var/log/journal/*/system@*.journal")
	t.Logf("%d entries in %d files, of which %d are left; %+v", d.sent, len(archived), len(files), r.Stats())
	if len(archived) < 5 || len(files) >= len(archived) {
		t.Errorf("%d files were archived and %d are left: rotation or vacuum was not tested", len(archived), len(files))
	}
	for _, r := range []*Reader{all, r} {
		if s := r.Stats(); s.Damaged+s.DamagedFields != 0 || s.Refused != 0 {
			t.Errorf("something was wrong: %+v, %v", s, r.Refused())
		}
	}
	if all.Stats().Copies < 400 {
		t.Errorf("got %d copies of the volatile journal, want at least 400", all.Stats().Copies)
	}
	r.Close()
}
