// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logfiles"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
)

const (
	// maxStrangeWrites wait for their cgroup to become known, for strangeExitFor.
	maxStrangeWrites = 1024
	// otherWriters is how many processes of a container are asked where a file is that one has written to that is gone.
	otherWriters = 4
)

// strangeWrite is one of a cgroup that is not known yet.
type strangeWrite struct {
	write bpf.FileWrite
	at    time.Time
}

// followFileWrites runs until the kernel is closed.
func (inv *Inventory) followFileWrites() {
	err := inv.kernel.FileWrites(func(w bpf.FileWrite) {
		if !inv.onFileWrite(&w) {
			inv.mu.Lock()
			if len(inv.strangeWrites) < maxStrangeWrites {
				inv.strangeWrites = append(inv.strangeWrites, strangeWrite{w, inv.now()})
			}
			inv.mu.Unlock()
		}
	})
	if err != nil {
		inv.log.Error("log files are found by what processes hold open alone from now on", zap.Error(err))
	}
}

// retryStrangeWrites looks at those whose cgroup is known by now.
func (inv *Inventory) retryStrangeWrites(now time.Time) {
	inv.mu.Lock()
	list := inv.strangeWrites
	inv.strangeWrites = nil
	inv.mu.Unlock()
	var still []strangeWrite
	for i := range list {
		if !inv.onFileWrite(&list[i].write) && now.Sub(list[i].at) < strangeExitFor {
			still = append(still, list[i])
		}
	}
	if len(still) > 0 {
		inv.mu.Lock()
		inv.strangeWrites = append(still, inv.strangeWrites...)
		inv.mu.Unlock()
	}
}

// onFileWrite finds out whether it is a log file that was written to. It returns false if it does not know the cgroup.
func (inv *Inventory) onFileWrite(w *bpf.FileWrite) (known bool) {
	inv.mu.Lock()
	d := inv.resolve(w.CgroupV2, w.CgroupV1)
	c := d.container()
	if c == nil || c.hidden && !c.pending {
		inv.mu.Unlock()
		return d != nil
	}
	l, places := d.life, placesOf(c)
	inv.mu.Unlock()
	what := logfiles.Write{Device: w.Device, Inode: w.Inode, Path: w.Path, Cut: w.Cut}
	f, ok := inv.logFiles.Written(w.PID, what)
	if !ok && !inv.isAlive(w.PID) {
		pids := inv.processesOf(places)
		for i := 0; i < min(len(pids), otherWriters) && !ok; i++ {
			f, ok = inv.logFiles.Written(pids[i], what)
		}
	}
	if ok {
		inv.addLogFile(l, w.PID, f, logtail.At(w.Size))
	}
	return true
}

// isAlive tells whether there is a process that can still be asked about its files.
func (inv *Inventory) isAlive(pid int) bool {
	return unix.Access(fmt.Sprintf("%s/%d/root/.", inv.opts.ProcRoot, pid), unix.F_OK) == nil
}

// lookAtLogFiles finds the log files that the processes of a life hold open.
func (inv *Inventory) lookAtLogFiles(l *life, pids []int) {
	if inv.logFiles == nil {
		return
	}
	for _, pid := range pids {
		found, err := inv.logFiles.Open(pid)
		if err != nil {
			inv.mu.Lock()
			inv.status.LogFilesUnseen++
			inv.mu.Unlock()
			continue
		}
		for _, f := range found {
			inv.addLogFile(l, pid, f, logtail.End())
		}
	}
	inv.rootAnew(l, pids)
}

// addLogFile has a file followed that a process sees. One that was made since we watch is read from its beginning, if it is not
// of an earlier life of the container: that has been read then.
func (inv *Inventory) addLogFile(l *life, pid int, f logfiles.File, start logtail.Start) {
	inv.mu.Lock()
	known := l.container.logs.files[f.Path] != nil
	inv.mu.Unlock()
	if known {
		return
	}
	disk := inv.logFiles.Disk(pid, f)
	var seen rootID
	if inv.isHosts(&f) {
		f.Root = "" // processes come and go
	} else {
		seen, _ = rootOf(f.Root)
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	c := l.container
	if c.dropped || c.current != l {
		return
	}
	since := inv.logsSince
	if l.young {
		since = l.born.Add(-lateRecords)
	}
	if !f.Born.IsZero() && !f.Born.Before(since) {
		start = logtail.Beginning()
	}
	s := &c.logs
	if s.files[f.Path] != nil {
		return
	}
	if len(s.files) >= maxLogFiles {
		inv.status.LogFilesSkipped++
		return
	}
	if s.files == nil {
		s.files = map[string]*logFile{}
	}
	s.files[f.Path] = &logFile{File: f, start: start, disk: disk, seen: seen}
	s.newFiles = true
	wake(inv.logNews)
}

// isHosts tells whether a file is at the same path in the host's root file system.
func (inv *Inventory) isHosts(f *logfiles.File) bool {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(inv.opts.Logs.Root, f.Path), &st)
	return err == nil && st.Dev == f.Dev && st.Ino == f.Inode
}

// rootAnew finds another way to the files that were found by a process that is gone, or whose number another one has that sees other
// files.
func (inv *Inventory) rootAnew(l *life, pids []int) {
	var dead []*logFile
	inv.mu.Lock()
	for _, f := range l.container.logs.files {
		if f.Root != "" {
			dead = append(dead, f)
		}
	}
	inv.mu.Unlock()
	now := map[string]rootID{}
	for _, f := range dead {
		if _, ok := now[f.Root]; !ok {
			now[f.Root], _ = rootOf(f.Root)
		}
		if id := now[f.Root]; id != (rootID{}) && (id == f.seen || f.seen == rootID{}) {
			continue
		}
		for _, pid := range pids {
			root := fmt.Sprintf("%s/%d/root", strings.TrimSuffix(inv.opts.ProcRoot, "/"), pid)
			id, ok := rootOf(root)
			if !ok {
				continue
			}
			inv.mu.Lock()
			f.Root, f.seen, f.followed = root, id, false
			l.container.logs.newFiles = true
			inv.mu.Unlock()
			break
		}
	}
}
