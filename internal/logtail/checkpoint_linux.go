// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

const (
	checkpointVersion = 1
	// savedFor is how long places are kept of sources that nobody follows.
	savedFor = 24 * time.Hour
)

type savedCheckpoint struct {
	Version int                    `json:"version"`
	Sources map[string]savedSource `json:"sources"`
}

type savedSource struct {
	At    int64       `json:"at"` // when it was last followed, s since 1970
	Seen  int64       `json:"seen,omitempty"`
	Files []savedFile `json:"files,omitempty"`
	Done  []fileID    `json:"done,omitempty"`
	Old   int64       `json:"old_done,omitempty"`
	Joins []savedJoin `json:"joins,omitempty"`
}

type savedFile struct {
	fileID
	position
	Current bool `json:"current,omitempty"`
}

type savedJoin struct {
	Stream Stream    `json:"stream"`
	Text   []byte    `json:"text,omitempty"`
	At     time.Time `json:"at"`
	Cut    bool      `json:"cut,omitempty"`
}

// Checkpoint returns the places behind the last lines that were given. A Follower that has it restored gives each line that
// this one has not given, and no other. What of a source was not followed again is kept for a day.
func (w *Follower) Checkpoint() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now().Unix()
	c := savedCheckpoint{Version: checkpointVersion, Sources: make(map[string]savedSource, len(w.sources)+len(w.saved))}
	for key, saved := range w.saved {
		if now-saved.At < int64(savedFor/time.Second) {
			c.Sources[key] = saved
		}
	}
	for key, s := range w.sources {
		if s.started {
			c.Sources[key] = s.save(now)
		}
	}
	b, err := json.Marshal(c)
	if err != nil { // a key that is not UTF-8 is replaced, a time outside of years 0 to 9999 is not made
		return nil
	}
	return b
}

func (s *source) save(now int64) savedSource {
	out := savedSource{At: now, Seen: s.lookedAt(), Done: s.done, Old: s.oldDone}
	for _, f := range s.files {
		out.Files = append(out.Files, savedFile{f.id, f.position, f == s.cur})
	}
	for i, j := range s.joins {
		if j.open {
			out.Joins = append(out.Joins, savedJoin{Stream(i), j.text, j.at, j.cut})
		}
	}
	return out
}

// Restore takes what Checkpoint returned. It is called before Follow; a source that is followed already keeps its place.
// Bytes that are no checkpoint are refused with ErrCheckpoint, and what cannot be true in one is left out.
func (w *Follower) Restore(b []byte) error {
	var c savedCheckpoint
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	if c.Version != checkpointVersion {
		return fmt.Errorf("%w: version %d", ErrCheckpoint, c.Version)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(w.saved, c.Sources)
	w.restored = time.Now()
	for _, s := range c.Sources {
		for _, f := range s.Files {
			if f.valid() {
				w.known[f.inode()] = leftFile{f.fileID, f.position}
			}
		}
	}
	return nil
}

// restore takes over what can be true.
func (s *source) restore(saved savedSource) {
	s.started, s.seenAt = true, saved.Seen
	if len(saved.Done) <= maxDone {
		s.done, s.oldDone = saved.Done, saved.Old
	}
	if len(saved.Files) > maxRotated+1 {
		saved.Files = saved.Files[len(saved.Files)-maxRotated-1:]
	}
	for _, v := range saved.Files {
		if !v.valid() {
			continue
		}
		f := &file{id: v.fileID, position: v.position, fd: -1, lookedAt: saved.Seen}
		s.files = append(s.files, f)
		if v.Current {
			s.cur = f
		}
	}
	for _, v := range saved.Joins {
		if v.Stream < streams && len(v.Text) <= maxMaxLine {
			s.joins[v.Stream] = join{text: v.Text, at: v.At, open: true, cut: v.Cut}
		}
	}
}
