// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"bytes"
	"context"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/journal"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

// JournalSource is the name of the journal as a source.
const JournalSource = "journald"

const (
	// Entries that nobody has asked for wait so long for somebody who does: a container may log before it is known.
	entriesWait = 10 * time.Second
	// maxWaiting bounds those of one cgroup or container, maxAllWaiting all, maxWaitingBytes their text and whose they are.
	maxWaiting      = 1024
	maxAllWaiting   = 8192
	maxWaitingBytes = 4 << 20
	// maxEntries are taken in before the place in the journal is noted; fewer if they have batchBytes of text.
	maxEntries = 1000
	batchBytes = 1 << 20
	// maxID is how long the id of a container may be. Any process may say that it is one.
	maxID = 128
	// maxTold messages are told at once, so that they do not take up much memory.
	maxTold = 256
	// maxProcesses of one owner have their messages put together at a time.
	maxProcesses = 64
	// maxPartial is how long a message may become that Docker or Podman has split.
	maxPartial = 256 << 10
	// lateEntries is how long after its end a container's entries may come, when another one has taken its place.
	lateEntries = time.Minute
	// retryJournal is how soon a journal is tried again that could not be opened.
	retryJournal = 10 * time.Second
)

// journalFields are those of an entry that count.
var journalFields = []string{
	"MESSAGE", "PRIORITY", "_SYSTEMD_CGROUP", "_PID", "_TRANSPORT", "CONTAINER_ID_FULL", "CONTAINER_PARTIAL_MESSAGE",
}

// journalReader gives entries to owners.
type journalReader struct {
	ready chan struct{} // closed when reading is to begin

	mu       sync.Mutex // guards what follows; held from when entries are taken in until place is noted. Taken before Owner.mu
	owners   map[string]claim
	waiting  map[string][]entry
	expired  time.Time // when it was last looked which have waited too long
	count    int       // of waiting
	bytes    int       // likewise
	partials map[string][]byte
	touched  map[*Owner]bool // have taken in entries since the last were told
	partial  int             // bytes of partials
	place    string
	stats    journal.Stats
	err      error
}

// claim is whose the entries of a container or a cgroup are.
type claim struct {
	*Owner
	until time.Time // it has others since then; zero while these are its own
}

// entry is what counts of an entry of the journal.
type entry struct {
	Match   string    `json:"match"` // the id of a container, or a cgroup
	At      time.Time `json:"at"`
	Text    []byte    `json:"text"`
	Process uint64    `json:"process"`
	Level   uint8     `json:"level"`
	Certain bool      `json:"certain,omitempty"` // whatever the text says

	came      time.Time
	container bool // Match is its id
	partial   bool // there is more of the message to come
}

// size is what an entry takes up that waits.
func (e *entry) size() int { return len(e.Match) + len(e.Text) }

func (r *journalReader) init() {
	r.ready = make(chan struct{})
	r.owners, r.waiting, r.partials = map[string]claim{}, map[string][]entry{}, map[string][]byte{}
	r.touched = map[*Owner]bool{}
}

// FollowJournal makes the entries o's that have a cgroup, such as /system.slice/x.service, or one below it; or those of the
// container with an id.
func (o *Owner) FollowJournal(cgroup, containerID string) {
	r := &o.logs.journal
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { o.lock().unlock() }() // tells of all that have waited
	if r.hasAll(o, cgroup, containerID) {
		return
	}
	r.release(o, cgroup, containerID)
	for _, match := range [...]string{cgroup, containerID} {
		if match == "" || r.owners[match].Owner == o {
			continue
		}
		r.owners[match] = claim{Owner: o}
		for other, list := range r.waiting {
			if other != match && !strings.HasPrefix(other, match+"/") {
				continue
			}
			for i := range list {
				r.count--
				r.bytes -= list[i].size()
				o.entry(&list[i])
			}
			delete(r.waiting, other)
		}
	}
}

// hasAll tells whether o has what is not "". mu is held.
func (r *journalReader) hasAll(o *Owner, matches ...string) bool {
	for _, match := range matches {
		if match != "" && r.owners[match] != (claim{Owner: o}) {
			return false
		}
	}
	return true
}

// release lets go of what o had claimed before, after a while. mu is held.
func (r *journalReader) release(o *Owner, cgroup, containerID string) {
	now := o.logs.now()
	for match, c := range r.owners {
		switch {
		case c.Owner != o:
		case match == cgroup, match == containerID:
			r.owners[match] = claim{Owner: o}
		case c.until.IsZero():
			r.owners[match] = claim{o, now.Add(lateEntries)}
		case now.After(c.until):
			delete(r.owners, match)
		}
	}
}

func (r *journalReader) forget(o *Owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for match, c := range r.owners {
		if c.Owner == o {
			delete(r.owners, match)
		}
	}
}

// absorb must not be called with an Owner locked.
func (r *journalReader) absorb(to, from *Owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for match, c := range r.owners {
		if c.Owner == from {
			r.owners[match] = claim{to, c.until}
		}
	}
}

// runJournal reads until ctx ends.
func (l *Logs) runJournal(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-l.journal.ready:
	}
	for {
		l.journal.mu.Lock()
		place := l.journal.place
		l.journal.mu.Unlock()
		reader, err := journal.Open(journal.Options{
			Root: l.opts.Root, Dirs: l.opts.JournalDirs, Checkpoint: place, Fields: journalFields, Logger: l.log,
		})
		if err == nil {
			l.follow(ctx, reader)
			_ = reader.Close()
			return
		}
		l.log.Warn("the journal cannot be read from where it was left, reading from its end", zap.Error(err))
		l.journal.mu.Lock()
		l.journal.place, l.journal.err = "", err
		l.journal.mu.Unlock()
		if place == "" {
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryJournal):
			}
		}
	}
}

func (l *Logs) follow(ctx context.Context, reader *journal.Reader) {
	r := &l.journal
	note := func() {
		r.place, r.stats = reader.Checkpoint(), reader.Stats()
	}
	r.mu.Lock()
	note()
	r.mu.Unlock()
	var b batch
	for {
		l.pace(ctx)
		e, err := reader.Next(ctx)
		if err != nil {
			return
		}
		// mu is not held while the disk is read, which may hang.
		now := l.now()
		for b.add(e, now); !b.full(); b.add(e, now) {
			var ok bool
			if e, ok = reader.Poll(); !ok {
				break
			}
		}
		r.mu.Lock()
		if ctx.Err() != nil {
			r.mu.Unlock()
			return // they are read again
		}
		for i := range b.entries {
			l.takeEntry(&b.entries[i])
		}
		note()
		for o := range r.touched {
			o.lock().unlock() // tells of all its entries at once
		}
		clear(r.touched)
		r.mu.Unlock()
		b.reset()
	}
}

// batch is entries that were read and not taken in yet.
type batch struct {
	entries []entry
	text    []byte // that of the last ones; of those before it in other arrays, when it was not long enough
	bytes   int
}

// add takes what counts of an entry that the reader will use again.
func (b *batch) add(from *journal.Entry, now time.Time) {
	e := entry{At: from.Realtime, Text: b.keep(bytes.TrimSuffix(from.Field("MESSAGE"), []byte{'\n'})), came: now}
	level, known := levelOf(from.Field("PRIORITY"))
	if id := from.Field("CONTAINER_ID_FULL"); id != nil && len(id) <= maxID {
		e.Match, e.container = string(id), true
		e.Process = uint64(level) // each output has one priority
		e.partial = from.Field("CONTAINER_PARTIAL_MESSAGE") != nil
	} else {
		e.Match = string(from.Field("_SYSTEMD_CGROUP"))
		e.Process, _ = strconv.ParseUint(string(from.Field("_PID")), 10, 64)
		e.Level, e.Certain = uint8(level), known && string(from.Field("_TRANSPORT")) != "stdout"
	}
	b.entries = append(b.entries, e)
}

func (b *batch) keep(text []byte) []byte {
	if len(text) > cap(b.text)-len(b.text) {
		b.text = make([]byte, 0, max(batchBytes/4, len(text)))
	}
	at := len(b.text)
	b.text = append(b.text, text...)
	b.bytes += len(text)
	return b.text[at:len(b.text):len(b.text)]
}

func (b *batch) full() bool { return len(b.entries) >= maxEntries || b.bytes >= batchBytes }

func (b *batch) reset() {
	clear(b.entries)
	b.entries, b.text, b.bytes = b.entries[:0], b.text[:0], 0
}

// takeEntry counts an entry, or has it wait. journal.mu is held.
func (l *Logs) takeEntry(e *entry) {
	r := &l.journal
	var owner *Owner
	if e.container {
		if !r.join(e) {
			return
		}
		owner = r.owners[e.Match].Owner
	} else {
		owner = r.ownerAt(e.Match)
	}
	if len(e.Text) == 0 {
		return
	}
	if owner != nil {
		owner.entry(e)
		r.touched[owner] = true
		return
	}
	l.wait(e)
}

// join puts the parts of a message together. It returns false until the last one.
func (r *journalReader) join(e *entry) bool {
	key := e.Match + "\n" + strconv.FormatUint(e.Process, 10)
	before := r.partials[key]
	if !e.partial {
		if before != nil {
			e.Text = append(before, e.Text...)
			r.partial -= len(before)
			delete(r.partials, key)
		}
		return true
	}
	r.addPartial(key, e.Text)
	return false
}

// addPartial keeps a part. Where there are too many, all beginnings are left out: some have no end.
func (r *journalReader) addPartial(key string, text []byte) {
	before := r.partials[key]
	text = text[:min(len(text), max(0, maxPartial-len(before)))]
	if len(r.partials) >= maxWaiting || r.partial+len(text) > maxWaitingBytes {
		clear(r.partials)
		r.partial = 0
		return
	}
	r.partials[key] = append(before, text...)
	r.partial += len(text)
}

// ownerAt finds whose a cgroup is, or one that it is in.
func (r *journalReader) ownerAt(cgroup string) *Owner {
	for len(cgroup) > 1 {
		if c, ok := r.owners[cgroup]; ok {
			return c.Owner
		}
		cgroup = path.Dir(cgroup)
	}
	return nil
}

// wait keeps an entry in case that somebody asks for it.
func (l *Logs) wait(e *entry) {
	r := &l.journal
	if since := e.came.Sub(r.expired); since > entriesWait/4 {
		r.expired = e.came
		r.expire(e.came.Add(-entriesWait), &l.counters)
	}
	list := r.waiting[e.Match]
	if e.Match == "" || len(list) >= maxWaiting || r.count >= maxAllWaiting || r.bytes+e.size() > maxWaitingBytes {
		l.counters.journalUnknown.Add(1)
		return
	}
	kept := *e
	kept.Text = bytes.Clone(e.Text)
	r.waiting[e.Match] = append(list, kept)
	r.count++
	r.bytes += kept.size()
}

func (r *journalReader) expire(before time.Time, c *counters) {
	for match, list := range r.waiting {
		n := 0
		for n < len(list) && list[n].came.Before(before) {
			r.count--
			r.bytes -= list[n].size()
			n++
		}
		c.journalUnknown.Add(uint64(n)) //nolint:gosec // not negative
		if n == len(list) {
			delete(r.waiting, match)
		} else {
			r.waiting[match] = list[n:]
		}
	}
}

// entry takes in an entry of the journal.
func (o *Owner) entry(e *entry) {
	o = o.lock()
	defer func() {
		if len(o.told) < maxTold {
			o.mu.Unlock() // what is to be told is told with that of the entries after it
		} else {
			o.unlock()
		}
	}()
	o.unit = o.sourceOf(JournalSource)
	j := o.journal[e.Process]
	if j == nil {
		if len(o.journal) >= maxProcesses {
			for process, old := range o.journal {
				o.end(old, o.unit)
				delete(o.journal, process)
			}
		}
		j = &join{}
		o.journal[e.Process] = j
	}
	level := told{logpatterns.Level(min(e.Level, uint8(logpatterns.NumLevels)-1)), e.Certain}
	o.line(j, o.unit, e.Text, level, e.At, o.logs.now())
}

// levelOf is the level of a syslog priority; see syslog(3).
func levelOf(priority []byte) (logpatterns.Level, bool) {
	if len(priority) != 1 || priority[0] < '0' || priority[0] > '7' {
		return logpatterns.LevelUnknown, false
	}
	switch priority[0] {
	case '0', '1', '2':
		return logpatterns.LevelCritical, true
	case '3':
		return logpatterns.LevelError, true
	case '4':
		return logpatterns.LevelWarning, true
	case '5', '6':
		return logpatterns.LevelInfo, true
	}
	return logpatterns.LevelDebug, true
}
