// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const journalRemote = "/lib/systemd/systemd-journal-remote"

// remoteJournal is a directory of journal files that systemd-journal-remote writes. As with journald, entries are added to one
// file.
type remoteJournal struct {
	t   *testing.T
	dir string
	n   int
}

func newRemoteJournal(t *testing.T) *remoteJournal {
	t.Helper()
	if _, err := os.Stat(journalRemote); err != nil {
		if os.Getenv("EBPFCONTAINER_REQUIRE_ROOT_TESTS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return &remoteJournal{t: t, dir: t.TempDir()}
}

// add writes entries, each of fields as NAME=VALUE.
func (j *remoteJournal) add(entries ...[]string) {
	j.t.Helper()
	var b strings.Builder
	for _, fields := range entries {
		j.n++
		fmt.Fprintf(&b, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%032x\n_MACHINE_ID=%032x\n%s\n\n",
			time.Now().UnixMicro()+int64(j.n), j.n, 1, 2, strings.Join(fields, "\n"))
	}
	ctx, cancel := context.WithTimeout(j.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, journalRemote, "-o", filepath.Join(j.dir, "remote.journal"), "-")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		j.t.Fatalf("systemd-journal-remote: %v\n%s", err, out)
	}
}

func (j *remoteJournal) options(store Store) Options {
	return Options{Root: "/", Journal: true, JournalDirs: []string{j.dir}, Store: store, CheckpointEvery: often}
}

const unit = "/system.slice/web.service"

// of makes an entry of a unit's process, from its standard output.
func of(cgroup string, pid, priority int, message string) []string {
	return []string{
		"_SYSTEMD_CGROUP=" + cgroup, fmt.Sprint("_PID=", pid), fmt.Sprint("PRIORITY=", priority), "_TRANSPORT=stdout", "MESSAGE=" + message,
	}
}

// syslog makes one that the process has given a priority.
func syslog(pid, priority int, message string) []string {
	e := of(unit, pid, priority, message)
	e[3] = "_TRANSPORT=syslog"
	return e
}

func ofContainer(id string, partial bool, message string) []string {
	e := append(of("/system.slice/docker.service", 7, 6, message), "CONTAINER_ID_FULL="+id)
	e[3] = "_TRANSPORT=journal"
	if partial {
		e = append(e, "CONTAINER_PARTIAL_MESSAGE=true")
	}
	return e
}

// begun waits until the journal is being read: what was there before does not count.
func (j *remoteJournal) begun(l *Logs) {
	j.t.Helper()
	l.ReadJournal()
	until(j.t, "the journal is read", func() bool {
		l.journal.mu.Lock()
		defer l.journal.mu.Unlock()
		return l.journal.place != ""
	})
}

func TestEntriesOfAUnit(t *testing.T) {
	j := newRemoteJournal(t)
	j.add(of(unit, 1, 6, "before all"))
	l := open(t, j.options(nil))
	defer closeLogs(t, l)
	o, other := l.Owner(t.Context(), unit), l.Owner(t.Context(), "/system.slice/webserver.service")
	o.FollowJournal(unit, "")
	other.FollowJournal("/system.slice/webserver.service", "")
	j.begun(l)
	j.add(
		of(unit, 1, 6, "ready"), of(unit+"/worker", 2, 6, "request 1 done"), of(unit+"/worker", 2, 6, "request 2 done"),
		syslog(1, 0, "on fire"), syslog(1, 3, "it broke"), syslog(1, 4, "it may break"), syslog(1, 5, "note this"), syslog(1, 7, "in detail"),
		of(unit, 1, 6, "ERROR the level of the text counts here"),
		of("/system.slice/webserver.service", 3, 6, "another one"), of("/user.slice/user-1.slice/session-1.scope", 4, 6, "nobody's"),
	)
	until(t, "all messages", func() bool { return messages(o) == 9 && messages(other) == 1 })
	want := map[string]uint64{
		"journald info ready": 1, "journald info request <*> done": 2, "journald critical on fire": 1, "journald error it broke": 1,
		"journald warning it may break": 1, "journald info note this": 1, "journald debug in detail": 1,
		"journald error the level of the text counts here": 1,
	}
	if diff := cmp.Diff(want, seriesOf(o)); diff != "" {
		t.Error(diff)
	}
}

// Two processes of a unit write traces at once: each is one message.
func TestInterleavedTracesInTheJournal(t *testing.T) {
	j := newRemoteJournal(t)
	l := open(t, j.options(nil))
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), unit)
	o.FollowJournal(unit, "")
	j.begun(l)
	var entries [][]string
	for _, line := range []string{"ERROR it broke", "java.lang.IllegalStateException: oh", "\tat a.B.c(B.java:1)", "\tat a.B.d(B.java:2)", "Caused by: a.Other: no", "\t... 2 more"} {
		entries = append(entries, of(unit, 1, 6, line), of(unit, 2, 6, strings.ReplaceAll(line, "it broke", "something else broke")))
	}
	entries = append(entries, of(unit, 1, 6, "INFO on it goes"), of(unit, 2, 6, "INFO on it goes"))
	j.add(entries...)
	want := map[string]uint64{"journald error it broke": 1, "journald error something else broke": 1, "journald info on it goes": 2}
	until(t, "all messages", func() bool { return messages(o) >= 4 })
	time.Sleep(2 * flushEvery)
	if diff := cmp.Diff(want, seriesOf(o)); diff != "" {
		t.Error(diff)
	}
}

func TestEntriesOfAContainer(t *testing.T) {
	j := newRemoteJournal(t)
	id, late := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	store := &memory{}
	l := open(t, j.options(store))
	o := l.Owner(t.Context(), "/docker/"+id)
	o.FollowJournal("", id)
	j.begun(l)
	part := strings.Repeat("x", 1000)
	j.add(
		ofContainer(id, true, "INFO part one "+part), ofContainer(id, true, part), ofContainer(id, false, part+" end"),
		ofContainer(id, true, "INFO ends exactly here"), ofContainer(id, false, ""),
		ofContainer(id, false, "INFO short"),
		ofContainer(late, false, "INFO before it was known"), ofContainer(late, true, "INFO begun before, "),
	)
	until(t, "three messages", func() bool { return messages(o) == 3 })
	bytes := uint64(len("INFO part one "+part+part+part+" end") + 1 + len("INFO ends exactly here") + 1 + len("INFO short") + 1)
	if n := o.Counts().Sources[0].Bytes; n != bytes {
		t.Errorf("%d bytes, want %d", n, bytes)
	}
	saved(t, l)
	options := j.options(kill(t, l, store))
	j.add(ofContainer(late, false, "ended after the restart"), ofContainer(id, false, "INFO while nobody read"))
	l = open(t, options)
	defer closeLogs(t, l)
	o = l.Owner(t.Context(), "/docker/"+id)
	o.FollowJournal("", id)
	l.ReadJournal()
	until(t, "the next message", func() bool { return messages(o) == 4 })
	// Those of another wait until it is known whose they are.
	b := l.Owner(t.Context(), "/docker/"+late)
	b.FollowJournal("", late)
	until(t, "what has waited", func() bool { return messages(b) == 2 })
	want := uint64(len("INFO before it was known") + 1 + len("INFO begun before, ended after the restart") + 1)
	if n := b.Counts().Sources[0].Bytes; n != want {
		t.Errorf("%d bytes of the one that was known late, want %d", n, want)
	}
	if s := l.Stats(); s.JournalUnknown != 0 || s.UncleanStarts != 1 {
		t.Errorf("%+v", s)
	}
}

// What is written late by a container that was made anew still counts, but not for ever.
func TestContainerThatIsMadeAnewOften(t *testing.T) {
	j := newRemoteJournal(t)
	options := j.options(nil)
	var at atomic.Int64
	options.Now = func() time.Time { return time.Now().Add(time.Duration(at.Load())) }
	l := open(t, options)
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), "/docker/web")
	id := func(n int) string { return fmt.Sprintf("%064x", n) }
	for n := range 100 {
		o.FollowJournal("", id(n))
		at.Add(int64(lateEntries))
	}
	at.Add(int64(-lateEntries / 2))
	j.begun(l)
	j.add(ofContainer(id(97), false, "INFO too late"), ofContainer(id(98), false, "INFO a last word"), ofContainer(id(99), false, "INFO hello"))
	until(t, "its messages", func() bool { return messages(o) >= 2 })
	want := map[string]uint64{"journald info a last word": 1, "journald info hello": 1}
	if diff := cmp.Diff(want, seriesOf(o)); diff != "" {
		t.Error(diff)
	}
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	if n := len(l.journal.owners); n > 3 {
		t.Errorf("%d claims are kept", n)
	}
}

// Each entry is counted once, whenever the process ends.
func TestTheJournalOverRestarts(t *testing.T) {
	j := newRemoteJournal(t)
	store := &memory{}
	l := open(t, j.options(store))
	o := l.Owner(t.Context(), unit)
	o.FollowJournal(unit, "")
	j.begun(l)
	const rounds, entries = 8, 200
	for round := range rounds {
		var all [][]string
		for n := range entries {
			all = append(all, of(unit, n%5, 6, fmt.Sprintf("INFO entry %d", round*entries+n)))
		}
		j.add(all...)
		if round%2 == 0 {
			closeLogs(t, l)
		} else {
			until(t, "some of it", func() bool { return messages(o) > uint64(round*entries) }) //nolint:gosec // not negative
			store = kill(t, l, store)
		}
		l = open(t, j.options(store))
		o = l.Owner(t.Context(), unit)
		o.FollowJournal(unit, "")
		l.ReadJournal()
	}
	defer func() { closeLogs(t, l) }()
	until(t, "all", func() bool { return messages(o) >= rounds*entries })
	time.Sleep(100 * time.Millisecond)
	if n := messages(o); n != rounds*entries {
		t.Errorf("%d messages, want %d", n, rounds*entries)
	}
}

// Any process may say that it is a container, with an id of any length: what waits is bounded with it.
func TestEntriesWithLongIDs(t *testing.T) {
	j := newRemoteJournal(t)
	l := open(t, j.options(nil))
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), unit)
	o.FollowJournal(unit, "")
	j.begun(l)
	entries := [][]string{append(of(unit, 1, 6, "INFO of the unit"), "CONTAINER_ID_FULL="+strings.Repeat("e", maxID+1))}
	for i := range maxAllWaiting {
		e := of("/user.slice/"+strings.Repeat("f", 2000)+fmt.Sprint(i), 2, 6, "x")
		entries = append(entries, append(e, fmt.Sprintf("CONTAINER_ID_FULL=%0*d", 64<<10, i)))
		if len(entries) == 100 {
			j.add(entries...)
			entries = nil
			if i > 3*maxWaitingBytes/2000 {
				break
			}
		}
	}
	until(t, "more than may wait", func() bool { return l.Stats().JournalUnknown > 0 })
	if n := messages(o); n != 1 {
		t.Errorf("%d messages of the unit, want 1", n)
	}
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	size := 0
	for match, list := range l.journal.waiting {
		size += len(list) * len(match)
	}
	if size > maxWaitingBytes {
		t.Errorf("%d bytes wait, want at most %d", size, maxWaitingBytes)
	}
}
