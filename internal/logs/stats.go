// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"github.com/ebpfcontainer/ebpfcontainer/internal/journal"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
)

// Stats are totals since Open, but for those that say how many there are.
type Stats struct {
	Owners, Patterns int // that there are

	Messages    uint64 // counted, in patterns or by level
	Bytes       uint64 // of their text
	RateLimited uint64 // lines that were dropped by Options.MaxMessagesPerSecond
	Untold      uint64 // messages that were not told: who is told was too slow
	Suppressed  uint64 // first messages of patterns that were not told: too many at a time

	Files   logtail.Stats
	Journal journal.Stats
	// JournalError is why the journal cannot be read, nil where it is, or is not there.
	JournalError   error
	JournalUnknown uint64 // entries of nobody who asked for them: of sessions, of units that are not given

	Checkpoints, CheckpointErrors uint64
	// UncleanStarts is how often the process was killed since there is a Store: then messages of up to Options.CheckpointEvery
	// were read again, which are not twice in the counts, but are told twice.
	UncleanStarts uint64
}

// Stats returns what was counted so far.
func (l *Logs) Stats() Stats {
	c := &l.counters
	s := Stats{
		Messages: c.messages.Load(), Bytes: c.bytes.Load(),
		RateLimited: c.rateLimited.Load(), Suppressed: c.suppressed.Load(), Untold: c.untold.Load(),
		Files:          l.tail.Stats(),
		JournalUnknown: c.journalUnknown.Load(),
		Checkpoints:    c.checkpoints.Load(), CheckpointErrors: c.checkpointErrors.Load(),
		UncleanStarts: c.uncleanStarts.Load(),
	}
	l.journal.mu.Lock()
	s.Journal, s.JournalError = l.journal.stats, l.journal.err
	l.journal.mu.Unlock()
	l.mu.RLock()
	all := l.all()
	l.mu.RUnlock()
	s.Owners = len(all)
	for _, o := range all {
		o.mu.Lock()
		if o.counted.last != nil {
			s.Patterns += len(o.counted.last.Patterns)
		}
		o.mu.Unlock()
	}
	return s
}
