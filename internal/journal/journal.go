// SPDX-License-Identifier: Apache-2.0

// Package journal reads and follows the journal of systemd: all its files, as they are written, rotated and deleted.
//
// It needs neither libsystemd nor journalctl. It reads regular and compact files with payloads packed by zstd, lz4 or xz, goes
// past damage and counts it, and takes nothing for granted that a file says. It knows no containers and no units: which entries
// matter is for the caller to say.
//
// journald empties the files that it deletes, even those that are open here: what was not read until then is lost.
package journal

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	defaultMaxFieldBytes = 256 << 10
	defaultPollInterval  = time.Second
	// batch is how many entries are given before files that had no more are looked at again.
	batch = 1024
)

// Start says where a Reader begins in files that no checkpoint knows.
type Start int

const (
	// End leaves out what is in the journal when the Reader is opened. What appears later is read from its beginning.
	End Start = iota
	// Beginning reads all that there is.
	Beginning
)

// Options configure a Reader. The zero value follows the journal of this host from its end.
type Options struct {
	// Root is where the host's file system is, "" for /.
	Root string
	// Dirs are the directories below Root, each with journal files or directories of them; default: /run/log/journal and
	// /var/log/journal. They need not exist yet. Those below /run are volatile: what journald copies from there to /var is not
	// given a second time.
	Dirs  []string
	Start Start
	// Checkpoint goes on where the Reader that gave it was. Files of a sequence that it does not know are then read from their
	// beginning; Start is not used.
	Checkpoint string
	// Fields are the names of the fields wanted, nil for all. Others cost little.
	Fields []string
	// MaxFieldBytes bounds a field with its name, default 256 KiB; of a longer one the beginning is given. All fields of an entry
	// have four times as much.
	MaxFieldBytes int
	// PollInterval is how often to look where the kernel does not tell of changes, default 1 s.
	PollInterval time.Duration
	Logger       *zap.Logger
}

// Stats counts what a Reader did.
type Stats struct {
	Entries       uint64 // given
	Damaged       uint64 // places that made no sense: entries, lists of entries, or parts of a file
	DamagedFields uint64 // fields that entries were given without
	CutFields     uint64 // fields longer than the limit
	Copies        uint64 // entries not given because the volatile journal had them already
	Files         int    // open
	Refused       int    // files that cannot be read; see Reader.Refused
}

// Reader gives the entries of all files of all directories. Next, Poll, Checkpoint and Close belong to one goroutine; the others
// may be called by any.
type Reader struct {
	opts    Options
	log     *zap.Logger
	blocks  blocks
	decoder decoder
	dirs    []*dir
	files   []*file
	lastID  uint32
	streams map[streamKey]*stream
	flushed map[ID]bootTime // of volatile files, by machine
	done    map[string]fingerprint
	waiter  waiter

	current    *file // gives entries until one of the limits
	limitSeq   uint64
	limitTime  uint64
	untilCheck int
	lastScan   time.Time

	mu      sync.Mutex // guards the rest
	stats   Stats
	refused map[string]refusal
}

// Open finds the journal files that there are. It fails only when the checkpoint is none: files that cannot be read are counted,
// logged once and left out.
func Open(opts Options) (*Reader, error) {
	if opts.Dirs == nil {
		opts.Dirs = []string{"/run/log/journal", "/var/log/journal"}
	}
	if opts.MaxFieldBytes <= 0 {
		opts.MaxFieldBytes = defaultMaxFieldBytes
	}
	if opts.PollInterval <= 0 {
		opts.PollInterval = defaultPollInterval
	}
	r := &Reader{
		opts:    opts,
		log:     opts.Logger,
		streams: map[streamKey]*stream{},
		flushed: map[ID]bootTime{},
		done:    map[string]fingerprint{},
		refused: map[string]refusal{},
	}
	if r.log == nil {
		r.log = zap.NewNop()
	}
	r.decoder = decoder{blocks: &r.blocks, limit: opts.MaxFieldBytes}
	if opts.Fields != nil {
		r.decoder.wanted = map[string]struct{}{}
		for _, name := range opts.Fields {
			r.decoder.wanted[name] = struct{}{}
		}
	}
	if opts.Checkpoint != "" {
		if err := r.restore(opts.Checkpoint); err != nil {
			return nil, err
		}
	}
	r.waiter = newWaiter(r.log)
	r.dirs = rootDirs(opts)
	r.scanUntilStable()
	if opts.Checkpoint == "" && opts.Start == End {
		r.skipToEnd()
	}
	return r, nil
}

// Close gives back the files.
func (r *Reader) Close() error {
	for _, f := range r.files {
		f.closer.Close()
	}
	r.files, r.current = nil, nil
	r.decoder.unpacker.close()
	return r.waiter.close()
}

// Next returns the next entry, and waits for it if there is none. It fails only with the error of ctx.
func (r *Reader) Next(ctx context.Context) (*Entry, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if e, ok := r.Poll(); ok {
			return e, nil
		}
		r.waiter.wait(ctx, r.opts.PollInterval)
	}
}

// Poll returns the next entry if there is one now. Entries of one sequence come in the order of their numbers, others by time;
// an entry that is written late to another file comes late.
func (r *Reader) Poll() (*Entry, bool) {
	for {
		f := r.pick()
		if f == nil {
			return nil, false
		}
		head := f.head
		f.hasHead = false
		f.stream.position, f.stream.realtime = head.seqnum, head.realtime
		if r.isCopy(f, head) {
			r.count(func(s *Stats) { s.Copies++ })
			continue
		}
		err := r.decoder.decode(f, head)
		r.mu.Lock()
		r.stats.CutFields += r.decoder.cutFields
		if err != nil {
			r.stats.Damaged++
			r.mu.Unlock()
			continue
		}
		r.stats.DamagedFields += r.decoder.damagedFields
		r.stats.Entries++
		r.mu.Unlock()
		return &r.decoder.entry, true
	}
}

// Stats returns what was counted so far.
func (r *Reader) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Refused = len(r.refused)
	return s
}

// Refused returns why files are left out: an error for each, with its path.
func (r *Reader) Refused() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := make([]error, 0, len(r.refused))
	for _, refusal := range r.refused {
		errs = append(errs, refusal.err)
	}
	return errs
}

func (r *Reader) count(f func(*Stats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.stats)
}

func (r *Reader) countDamage(n uint64) { r.count(func(s *Stats) { s.Damaged += n }) }

// drop closes a file that has nothing more to give.
func (r *Reader) drop(f *file) {
	f.closer.Close()
	f.stream.files = remove(f.stream.files, f)
	r.files = remove(r.files, f)
	if r.current == f {
		r.current = nil
	}
	r.count(func(s *Stats) { s.Files = len(r.files) })
}

func remove(files []*file, f *file) []*file {
	return slices.DeleteFunc(files, func(g *file) bool { return g == f })
}

// fingerprint is a file that was read to its end.
type fingerprint struct {
	info os.FileInfo
}

func (p fingerprint) same(info os.FileInfo) bool {
	return os.SameFile(p.info, info) && p.info.Size() == info.Size() && p.info.ModTime().Equal(info.ModTime())
}

type refusal struct {
	err  error
	file fingerprint
}
