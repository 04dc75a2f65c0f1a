// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logfiles"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logs"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
)

// Those who get a Snapshot need no package but this one for what is in it.
type (
	// LogCounts is what the logs of a container have come to.
	LogCounts = logs.Counts
	// LogPattern is the messages of one pattern.
	LogPattern = logs.PatternCount
	// LogSource is what was read of a log.
	LogSource = logs.SourceCount
	// LogMessage is one that LogsOptions asks for.
	LogMessage = logs.Message
	// LogLevel is how severe a message is.
	LogLevel = logpatterns.Level
	// LogStore keeps places and counts for a later process.
	LogStore = logs.Store
	// LogForward is which messages are told as Events, beside the first ones of patterns.
	LogForward = logs.Forward
	// LogStats are totals of all logs.
	LogStats = logs.Stats
	// LogDrop is why lines are in no message.
	LogDrop = logs.Drop
)

// The values of LogForward.
const (
	ForwardNone   = logs.ForwardNone
	ForwardErrors = logs.ForwardErrors
	ForwardAll    = logs.ForwardAll
)

// The values of LogLevel.
const (
	LogUnknown   = logpatterns.LevelUnknown
	LogDebug     = logpatterns.LevelDebug
	LogInfo      = logpatterns.LevelInfo
	LogWarning   = logpatterns.LevelWarning
	LogError     = logpatterns.LevelError
	LogCritical  = logpatterns.LevelCritical
	NumLogLevels = int(logpatterns.NumLevels)
)

// Streams of LogMessage.Stream.
const (
	LogStdout = logtail.Stdout
	LogStderr = logtail.Stderr
)

// LogDrops lists the reasons of LogSource.Dropped, in its order.
func LogDrops() []LogDrop { return logs.Drops() }

// LogsOptions of an Inventory.
type LogsOptions struct {
	Enabled bool     // follow the logs of containers
	Root    string   // where the host's root file system is seen; "" means /
	Roots   []string // directories whose files are logs, as containers see them; none follows no files
	Journal bool     // read the journal of systemd

	JournalDirs []string // on the host; none means where systemd has them

	MaxPatterns, MaxPatternsPerLevel int        // of a container; 0 means 512 and 256
	CountOnly                        []LogLevel // that are counted without looking for patterns
	MaxMessagesPerSecond             float64    // of a container, more are dropped and counted; 0 means no limit
	NewPatterns                      bool       // tell the first message of each pattern as an Event
	Forward                          LogForward // which other messages are told as Events

	GoneAfter time.Duration // a file that is gone for so long is followed no more; 0 is an hour

	Store           LogStore // nil: a later process begins anew
	CheckpointEvery time.Duration
}

const (
	// runtimeSource is the name of what a container writes to its standard output and error.
	runtimeSource = "stdout/stderr"
	// passLogsEvery is how often it is looked what is to be followed, beside when there is news.
	passLogsEvery = 500 * time.Millisecond
	// forgetLogsAfter is how long after the end of a container its runtime may still write its last lines.
	forgetLogsAfter = 2 * time.Second
	// lateRecords is how much older than a container's begin, as we saw it, its first record may be.
	lateRecords = time.Second
	// lookBack is how much of an old log file is read to find where a new life begins in it.
	lookBack = 16 << 20
	// maxLogFiles of one container are followed.
	maxLogFiles = 1024
)

// logState is what is followed of a container. Guarded by Inventory.mu.
type logState struct {
	owner     *logs.Owner // nil while there is nothing
	key       string      // that it has
	told      logPlace    // that it follows by now
	files     map[string]*logFile
	newFiles  bool // some are not followed yet
	forgotten bool // the files of a container that is gone were given up
}

// logPlace is where a runtime or journald has the log of a container.
type logPlace struct {
	path      string
	format    logtail.Format
	cgroup    string // of a unit whose entries in the journal count
	container string // id of one whose entries do
}

// logFile is a file that a container writes to.
type logFile struct {
	logfiles.File
	start    logtail.Start
	disk     uint64
	followed bool
	seen     rootID // what Root was when it was found
}

// rootID tells root directories apart: a process may get the number of another one.
type rootID struct{ dev, inode uint64 }

func rootOf(path string) (id rootID, ok bool) {
	var st unix.Stat_t
	if err := unix.Stat(path+"/.", &st); err != nil {
		return rootID{}, false
	}
	return rootID{st.Dev, st.Ino}, true
}

// openLogs begins to follow logs, if that is wanted.
func (inv *Inventory) openLogs(ctx context.Context) error {
	o := inv.opts.Logs
	if !o.Enabled {
		return nil
	}
	opened := inv.now()
	options := logs.Options{
		Root: o.Root, Journal: o.Journal, JournalDirs: o.JournalDirs,
		MaxPatterns: o.MaxPatterns, MaxPatternsPerLevel: o.MaxPatternsPerLevel,
		MaxMessagesPerSecond: o.MaxMessagesPerSecond, Keep: inv.opts.Keep,
		NewPatterns: o.NewPatterns, Forward: o.Forward,
		GoneAfter: o.GoneAfter, Store: o.Store, CheckpointEvery: o.CheckpointEvery, Now: inv.now, Logger: inv.log,
	}
	options.Gone = func(o *logs.Owner, path string) {
		inv.mu.Lock()
		defer inv.mu.Unlock()
		inv.logsGone = append(inv.logsGone, goneLog{o, path})
	}
	if o.NewPatterns || o.Forward != ForwardNone {
		options.Tell = inv.tellMessages
	}
	for _, level := range o.CountOnly {
		options.CountOnly[level%logpatterns.NumLevels] = true
	}
	var err error
	if inv.logs, err = logs.Open(ctx, options); err != nil {
		return err
	}
	if inv.logsSince = inv.logs.SavedAt(); inv.logsSince.IsZero() {
		inv.logsSince = opened
	}
	if len(o.Roots) > 0 {
		inv.logFiles = logfiles.New(logfiles.Options{ProcRoot: inv.opts.ProcRoot, Roots: o.Roots})
	}
	return nil
}

// goneLog is a path at which an owner has had no file for long.
type goneLog struct {
	owner *logs.Owner
	path  string
}

// leaveLogs lets go of files that are gone, so that a container may have others in their place.
func (inv *Inventory) leaveLogs() {
	inv.mu.Lock()
	gone := inv.logsGone
	inv.logsGone = nil
	inv.mu.Unlock()
	for _, g := range gone {
		inv.mu.Lock()
		c := inv.logOwners[g.owner]
		if c == nil || c.logs.told.path == g.path {
			inv.mu.Unlock()
			continue // its runtime may make it yet
		}
		f := c.logs.files[g.path]
		var root string
		if f != nil {
			root = f.Root
		}
		delete(c.logs.files, g.path) // who hears of a new one from now on follows it anew
		inv.mu.Unlock()
		if f == nil || !inv.isThere(root, g.path) {
			g.owner.Leave(g.path)
			continue
		}
		inv.mu.Lock()
		if s := &c.logs; s.owner == g.owner && s.files != nil && s.files[g.path] == nil {
			s.files[g.path] = f
		}
		inv.mu.Unlock()
	}
}

// isThere tells whether there is anything at the path of a log file, or might be.
func (inv *Inventory) isThere(root, path string) bool {
	if root == "" {
		root = inv.opts.Logs.Root
	}
	if err := unix.Access(root+"/.", unix.F_OK); err != nil {
		return true // its process is gone, there may be others
	}
	_, err := os.Lstat(filepath.Join(root, path))
	return !errors.Is(err, fs.ErrNotExist)
}

// runLogs keeps what is followed up to date until ctx ends.
func (inv *Inventory) runLogs(ctx context.Context) {
	t := time.NewTicker(passLogsEvery)
	defer t.Stop()
	began := inv.now()
	for {
		inv.passLogs(ctx)
		if !inv.isAnyPending() || inv.now().Sub(began) > namesWithin {
			inv.logs.ReadJournal() // those whose entries are waiting there are known
		}
		select {
		case <-ctx.Done():
			return
		case <-inv.logNews:
		case <-t.C:
		}
	}
}

// logWork is what is to be done for a container.
type logWork struct {
	c     *container
	life  *life
	owner *logs.Owner
	key   string
	place logPlace
	files []logFile
}

// passLogs follows what is new, and lets go of what is over.
func (inv *Inventory) passLogs(ctx context.Context) {
	inv.leaveLogs()
	work, over, ended := inv.logsToDo()
	for _, o := range over {
		o.Close()
	}
	for _, o := range ended {
		o.Forget()
	}
	for i := range work {
		if ctx.Err() != nil {
			return
		}
		inv.followLogs(ctx, &work[i])
	}
}

func (inv *Inventory) logsToDo() (work []logWork, over, ended []*logs.Owner) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	now := inv.now()
	for _, c := range inv.containers {
		s := &c.logs
		switch {
		case c.pending && s.owner == nil: // its name may come, or that nobody wants it
			continue
		case c.hidden, c.info != nil && c.info.LogsDisabled:
			inv.endLogs(c)
			continue
		case c.goneAt.IsZero():
			s.forgotten = false
		case s.forgotten:
			continue
		}
		w := logWork{c: c, life: c.current, owner: s.owner, key: c.ref.Path, place: inv.logPlaceOf(c)}
		if s.newFiles {
			for _, f := range s.files {
				if !f.followed {
					f.followed = true
					w.files = append(w.files, *f)
				}
			}
			s.newFiles = false
		}
		switch {
		case w.place != s.told || w.owner != nil && s.key != w.key || len(w.files) > 0:
			s.told, s.key = w.place, w.key
			work = append(work, w)
		case w.owner != nil && !c.goneAt.IsZero() && now.Sub(c.goneAt) >= forgetLogsAfter:
			s.forgotten, s.told, s.files = true, logPlace{}, nil
			ended = append(ended, w.owner)
		}
	}
	over, inv.logsOver = inv.logsOver, nil
	return work, over, ended
}

// endLogs gives up the logs of a container and forgets what was counted. mu is held.
func (inv *Inventory) endLogs(c *container) {
	if c.logs.owner != nil {
		delete(inv.logOwners, c.logs.owner)
		inv.logsOver = append(inv.logsOver, c.logs.owner)
	}
	c.logs = logState{}
}

// handOverLogs makes the logs of c those of to. What the one of them writes to that is gone is read to its end. mu is held.
func (inv *Inventory) handOverLogs(c, to *container) {
	gone, goesOn := &to.logs, &c.logs
	if !c.goneAt.IsZero() && (to.goneAt.IsZero() || c.goneAt.Before(to.goneAt)) {
		gone, goesOn = goesOn, gone
	}
	if gone.owner != nil {
		gone.owner.Forget()
	}
	now := logState{owner: to.logs.owner, files: goesOn.files, newFiles: len(goesOn.files) > 0} // to be followed under its key of now
	for _, f := range now.files {
		f.followed = false
	}
	switch from := c.logs.owner; {
	case from == nil:
	case now.owner == nil:
		now.owner = from
		inv.logOwners[from] = to
	default:
		delete(inv.logOwners, from)
		now.owner.Absorb(from)
	}
	to.logs, c.logs = now, logState{}
}

// logPlaceOf tells where else than in files of its own a container logs. mu is held.
func (inv *Inventory) logPlaceOf(c *container) (p logPlace) {
	if c.ref.Kind == cgroups.Systemd {
		if inv.opts.Logs.Journal {
			p.cgroup = c.ref.Path
		}
		return p
	}
	if c.info == nil {
		return p
	}
	switch driver := c.info.LogDriver; {
	case driver == "journald":
		if inv.opts.Logs.Journal {
			p.container = c.ref.ID
		}
	case c.info.LogPath == "", driver == "none":
	case driver == "json-file" && c.info.Runtime != "podman", // which has another format of that name
		driver == "" && c.info.Runtime == "docker": // cri-dockerd, whose paths are links to files of that driver
		p.path, p.format = c.info.LogPath, logtail.DockerJSON
	case c.info.Runtime == "docker":
		p.path, p.format = c.info.LogPath, logtail.DockerLocal
	default:
		p.path, p.format = c.info.LogPath, logtail.CRI
	}
	return p
}

func (inv *Inventory) followLogs(ctx context.Context, w *logWork) {
	if w.place == (logPlace{}) && len(w.files) == 0 && w.owner == nil {
		return
	}
	if w.owner == nil {
		w.owner = inv.logs.Owner(ctx, w.key)
		inv.mu.Lock()
		switch {
		case w.c.dropped, inv.containers[w.c.key] != w.c: // meanwhile it became another one's
			inv.logsOver = append(inv.logsOver, w.owner)
			inv.mu.Unlock()
			return
		case w.c.logs.owner != nil: // likewise
			w.owner.Close()
			w.owner = w.c.logs.owner
		default:
			w.c.logs.owner = w.owner
			inv.logOwners[w.owner] = w.c
		}
		inv.mu.Unlock()
	}
	w.owner.Rename(ctx, w.key)
	if w.place.cgroup != "" || w.place.container != "" {
		w.owner.FollowJournal(w.place.cgroup, w.place.container)
	}
	if w.place.path != "" {
		start, since := inv.startOf(w.place.path, w.life)
		w.owner.Follow(logs.Source{
			Name: runtimeSource, Path: w.place.path, Format: w.place.format, Start: start, Since: since,
		})
	}
	for i := range w.files {
		f := &w.files[i]
		w.owner.Follow(logs.Source{Name: f.Path, Path: f.Path, Root: f.Root, Start: f.start, Disk: f.disk})
	}
}

// startOf tells where the log of a runtime is read from, if no checkpoint knows it. A file may be older than the life of the
// container that writes to it: then its records tell what is of that.
func (inv *Inventory) startOf(path string, l *life) (logtail.Start, time.Time) {
	since := inv.logsSince
	inv.mu.Lock()
	if l.young {
		since = l.born.Add(-lateRecords)
	}
	young := l.young
	inv.mu.Unlock()
	var x unix.Statx_t
	name := filepath.Join(inv.opts.Logs.Root, path)
	if err := unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_DONT_SYNC, unix.STATX_BTIME|unix.STATX_SIZE, &x); err != nil {
		return logtail.BeginningSince(since), time.Time{} // it comes yet
	}
	switch {
	case x.Mask&unix.STATX_BTIME != 0 && !time.Unix(x.Btime.Sec, int64(x.Btime.Nsec)).Before(since):
		return logtail.BeginningSince(since), time.Time{}
	case young:
		return logtail.At(x.Size - min(x.Size, lookBack)), since
	}
	return logtail.End(), time.Time{}
}

// logCounts gives what was counted of all containers.
func (inv *Inventory) logCounts() map[*logs.Owner]*LogCounts {
	if inv.logs == nil {
		return nil
	}
	inv.mu.Lock()
	owners := make([]*logs.Owner, 0, len(inv.logOwners))
	for o := range inv.logOwners {
		owners = append(owners, o)
	}
	inv.mu.Unlock()
	all := make(map[*logs.Owner]*LogCounts, len(owners))
	for _, o := range owners {
		all[o] = o.Counts()
	}
	return all
}

// tellMessages makes events of messages. It waits for who follows them.
func (inv *Inventory) tellMessages(ctx context.Context, o *logs.Owner, messages []LogMessage) {
	select {
	case <-inv.followed:
	case <-ctx.Done():
		inv.dropMessages(len(messages))
		return
	}
	inv.mu.Lock()
	c, queue, end := inv.logOwners[o], inv.events, inv.eventsEnd
	if c == nil { // nobody wants its logs any more
		inv.mu.Unlock()
		return
	}
	e := Event{Kind: EventLog, At: inv.now(), Name: c.name, Ref: c.ref, Info: c.info}
	inv.mu.Unlock()
	for i := range messages {
		e.Message = &messages[i]
		select {
		case queue <- e: // or nil
			continue
		case <-end:
		case <-ctx.Done():
		}
		inv.dropMessages(len(messages) - i)
		return
	}
}

func (inv *Inventory) dropMessages(n int) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	inv.status.MessagesDropped += uint64(n) //nolint:gosec // a length
}
