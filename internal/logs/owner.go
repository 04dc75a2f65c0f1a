// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
)

// OtherSource stands for all sources of an owner past the fifteenth.
const OtherSource = "~other"

// Source is a log file of an owner.
type Source struct {
	Name   string // under which its messages are counted, such as stdout/stderr
	Path   string
	Root   string // see logtail.Source; "" means that Path is the host's
	Format logtail.Format
	Start  logtail.Start // where no checkpoint knows it
	Since  time.Time     // records with an earlier time are left out, until there is a later one
	Disk   uint64        // see logtail.Source
}

// Owner is whose logs some are. Its methods are safe for concurrent use.
type Owner struct {
	logs *Logs

	mu      sync.Mutex // guards what follows
	key     string
	into    *Owner // that has absorbed this one
	start   time.Time
	miner   *logpatterns.Miner // nil before the first message
	framer  logpatterns.Framer
	sources []*source
	streams map[string]*stream // by key of logtail
	journal map[uint64]*join   // by process
	unit    uint8              // number of the source of the journal
	open    int                // joins that have a message
	dirty   bool               // since it was saved
	changed bool               // since it was counted
	counted counted
	limit   bucket // of messages
	news    bucket // of first messages of patterns
	told    []Message
}

// source is what is counted under one name.
type source struct {
	name    string
	start   time.Time
	bytes   uint64
	dropped [numDrops]uint64
	plain   [logpatterns.NumLevels]uint64
}

// Drop is why lines were not counted as messages.
type Drop uint8

// The kinds of Drop.
const (
	DropRateLimit Drop = iota // more than Options.MaxMessagesPerSecond
	numDrops
)

// String is the name of the reason.
func (Drop) String() string { return "rate_limit" }

// streams of a file; others have one.
const streams = 3

// stream is a file, guarded by the mu of its owner.
type stream struct {
	owner   *Owner
	key     string // of logtail
	path    string
	name    string // of the source
	named   bool   // source is its number
	source  uint8
	since   time.Time
	joins   [streams]join
	leaving bool // guarded by Logs.mu, as the next
	gone    bool // there was nothing at the path
}

// join is a message that may go on.
type join struct {
	joiner logpatterns.Joiner
	open   bool
	at     time.Time // in the record of its first line, if there
	level  told      // with that
	last   time.Time // when a line came
	stream logtail.Stream
}

// told is a level that is not in the text.
type told struct {
	level   logpatterns.Level
	certain bool // whatever the text says
}

// Message is one that was asked for by Options.Forward or NewPatterns.
type Message struct {
	At             time.Time // zero if its record does not tell
	Source         string
	Stream         logtail.Stream
	Level          logpatterns.Level
	Text           string // any bytes. Of the first of a pattern without what may be secret
	Hash, Template string // of its pattern, if it has one
	New            bool   // the first of its pattern
}

// Owner returns the owner with a key, which stays the same over restarts. What a Store has of it is taken in.
func (l *Logs) Owner(ctx context.Context, key string) *Owner {
	l.mu.RLock()
	o, stale := l.owners[key], l.stale[key]
	l.mu.RUnlock()
	if o != nil {
		return o
	}
	o = l.newOwner(key)
	if !stale {
		l.loadOrSay(ctx, o)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if other := l.owners[key]; other != nil {
		return other
	}
	l.owners[key] = o
	return o
}

func (l *Logs) newOwner(key string) *Owner {
	return &Owner{
		logs: l, key: key, start: l.now(), streams: map[string]*stream{}, journal: map[uint64]*join{},
		limit: bucket{rate: l.opts.MaxMessagesPerSecond, burst: max(1, l.opts.MaxMessagesPerSecond*limitBurst)},
		news:  bucket{rate: newsRate, burst: newsBurst},
	}
}

// loadOrSay takes in what is saved of an owner that nobody else knows.
func (l *Logs) loadOrSay(ctx context.Context, o *Owner) {
	if err := l.load(ctx, o); err != nil {
		l.log.Warn("counts of a log begin anew", zap.String("owner", o.key), zap.Error(err))
	}
}

const (
	limitBurst = 2 // seconds of messages that may come at once
	// newsRate and newsBurst bound how many first messages of patterns are told of an owner.
	newsRate  = 0.5
	newsBurst = 30
)

// lock locks o, or the one that has absorbed it, and returns which.
func (o *Owner) lock() *Owner {
	for {
		o.mu.Lock()
		if o.into == nil {
			return o
		}
		next := o.into
		o.mu.Unlock()
		o = next
	}
}

// root is o, or the one that has absorbed it.
func (o *Owner) root() *Owner {
	o = o.lock()
	defer o.mu.Unlock()
	return o
}

// unlock also has the messages told that were asked for.
func (o *Owner) unlock() {
	what := o.told
	o.told = nil
	o.mu.Unlock()
	if len(what) == 0 {
		return
	}
	select {
	case o.logs.tells <- telling{o, what}:
	default:
		o.logs.counters.untold.Add(uint64(len(what)))
	}
}

// sourceOf returns the number of a source. mu is held.
func (o *Owner) sourceOf(name string) uint8 {
	name = strings.ToValidUTF8(name, "\uFFFD") // as it is in the end: two must not be the same then
	i := slices.IndexFunc(o.sources, func(s *source) bool { return s.name == name })
	if i < 0 {
		if len(o.sources) >= logpatterns.MaxSources-1 && name != OtherSource {
			return o.sourceOf(OtherSource)
		}
		i = len(o.sources)
		o.sources = append(o.sources, &source{name: name, start: o.logs.now()})
	}
	return uint8(i) //nolint:gosec // bounded
}

// Follow begins to follow a file, or tells another way to one that is followed.
func (o *Owner) Follow(src Source) {
	o.logs.mu.Lock()
	defer o.logs.mu.Unlock()
	o.follow(src)
}

// follow is Follow with Logs.mu held.
func (o *Owner) follow(src Source) {
	l := o.logs
	if l.over {
		return
	}
	o = o.lock()
	defer o.unlock()
	key := keyOf(o.key, src.Path)
	s, known := o.streams[key]
	if !known {
		s = &stream{owner: o, key: key, path: src.Path, name: src.Name, since: src.Since}
	}
	s.leaving, s.gone = false, false
	o.streams[key], l.streams[key] = s, s
	path, root := src.Path, src.Root
	if root == "" && l.opts.Root != "" && l.opts.Root != "/" {
		root = l.opts.Root
	}
	isNew := l.tail.Follow(logtail.Source{Key: key, Path: path, Root: root, Format: src.Format, Start: src.Start, Disk: src.Disk})
	if isNew && known { // it was read to its end, which forgotten is about to tell
		s.end(o)
		s.since = src.Since
	}
}

// keyOf is what a file is called in checkpoints, which are of text.
func keyOf(owner, path string) string {
	key := owner + "\n" + filepath.Clean(path)
	if !utf8.ValidString(key) {
		key = strconv.QuoteToASCII(key)
	}
	return key
}

// Leave follows a file no more of which Options.Gone has told. What was counted of it stays.
func (o *Owner) Leave(path string) {
	o.leave(func(s *stream) bool { return s.gone && s.path == path })
}

// Forget has the files of o read to their end, and then follows them no more.
func (o *Owner) Forget() {
	o.leave(func(*stream) bool { return true })
}

func (o *Owner) leave(which func(*stream) bool) {
	l := o.logs
	l.mu.Lock()
	defer l.mu.Unlock()
	o = o.lock()
	defer o.unlock()
	for key, s := range o.streams {
		if which(s) {
			s.leaving = true
			l.tail.Forget(key)
		}
	}
}

// Close forgets o and all that was counted of it. It is not used after that.
func (o *Owner) Close() {
	o.Forget()
	o.logs.journal.forget(o)
	o.logs.mu.Lock()
	defer o.logs.mu.Unlock()
	o = o.lock()
	defer o.unlock()
	if o.logs.owners[o.key] == o {
		o.logs.dropKey(o.key)
	}
}

// line takes in one line of a stream, which came at now and has at for its own time. mu is held.
func (o *Owner) line(j *join, source uint8, text []byte, level told, at, now time.Time) {
	o.sources[source].bytes += uint64(len(text)) + 1
	o.logs.counters.bytes.Add(uint64(len(text)) + 1)
	o.dirty, o.changed = true, true
	message, ok := j.joiner.Add(text)
	if ok {
		o.message(j, source, message)
	}
	if !j.open {
		o.open++
	}
	if ok || !j.open {
		j.at, j.level = at, level
	}
	j.open, j.last = true, now
}

// end ends the message of j. mu is held.
func (o *Owner) end(j *join, source uint8) {
	if message, ok := j.joiner.Flush(); ok {
		o.dirty, o.changed = true, true
		o.message(j, source, message)
	}
	if j.open {
		j.open = false
		o.open--
	}
}

// end ends the messages of s. mu of its owner o is held.
func (s *stream) end(o *Owner) {
	for i := range s.joins {
		o.end(&s.joins[i], s.source)
	}
}

// flush ends the messages to which nothing was added since, all for the zero time.
func (o *Owner) flush(since time.Time) {
	o.mu.Lock() // one that was absorbed has none
	defer o.unlock()
	if o.open == 0 {
		return
	}
	for _, s := range o.streams {
		for i := range s.joins {
			if j := &s.joins[i]; j.open && (since.IsZero() || j.last.Before(since)) {
				o.end(j, s.source)
			}
		}
	}
	for process, j := range o.journal {
		if since.IsZero() || j.last.Before(since) {
			o.end(j, o.unit)
			delete(o.journal, process)
		}
	}
}

// message counts one. mu is held.
func (o *Owner) message(j *join, number uint8, text []byte) {
	l := o.logs
	src := o.sources[number]
	if !o.limit.take(l.now) {
		lines := uint64(bytes.Count(text, []byte{'\n'})) + 1
		src.dropped[DropRateLimit] += lines
		l.counters.rateLimited.Add(lines)
		return
	}
	l.counters.messages.Add(1)
	head, level := o.framer.Frame(j.joiner.Head())
	if j.level.certain || level == logpatterns.LevelUnknown {
		level = j.level.level
	}
	var p logpatterns.Pattern
	if l.opts.CountOnly[level] {
		src.plain[level]++
	} else {
		if o.miner == nil {
			o.miner = o.newMiner()
		}
		p = o.miner.AddFrom(number, head, level)
	}
	if l.opts.Tell == nil {
		return
	}
	if l.opts.NewPatterns && p.IsNew() {
		o.tellNew(j, src, head, level, p)
	}
	if f := l.opts.Forward; f == ForwardAll || f == ForwardErrors && level >= logpatterns.LevelError {
		o.told = append(o.told, Message{
			At: j.at, Source: src.name, Stream: j.stream, Level: level, Text: string(text), Hash: p.ID(), Template: p.Template(),
		})
	}
}

func (o *Owner) newMiner() *logpatterns.Miner {
	return logpatterns.New(logpatterns.Options{
		MaxPatterns: o.logs.opts.MaxPatterns, MaxPatternsPerLevel: o.logs.opts.MaxPatternsPerLevel,
	})
}

func (o *Owner) tellNew(j *join, src *source, head []byte, level logpatterns.Level, p logpatterns.Pattern) {
	if !o.news.take(o.logs.now) {
		o.logs.counters.suppressed.Add(1)
		return
	}
	o.told = append(o.told, Message{
		At: j.at, Source: src.name, Stream: j.stream, Level: level, Text: o.miner.Redact(head), Hash: p.ID(), Template: p.Template(), New: true,
	})
}

// bucket lets through rate in a second, and burst at once. One with the rate 0 lets all through.
type bucket struct {
	rate, burst float64
	left        float64
	at          time.Time
}

func (b *bucket) take(now func() time.Time) bool {
	if b.rate <= 0 {
		return true
	}
	t := now()
	if b.at.IsZero() {
		b.left = b.burst
	} else {
		b.left = min(b.burst, b.left+b.rate*t.Sub(b.at).Seconds())
	}
	b.at = t
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// splitLines is the inverse of what Joiner.Pending does.
func splitLines(text []byte) [][]byte { return bytes.Split(text, []byte{'\n'}) }
