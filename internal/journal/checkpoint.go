// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// maxStreams is how many streams a checkpoint keeps. A stream ends with the files that it had; the oldest of those goes first.
const maxStreams = 1024

// checkpoint is what the string holds. Its version changes when an older reader would misunderstand it.
type checkpoint struct {
	Version  int                  `json:"version"`
	Streams  []checkpointStream   `json:"streams"`
	Volatile []checkpointVolatile `json:"volatile,omitempty"`
}

type checkpointStream struct {
	Machine  string `json:"machine"`
	SeqnumID string `json:"seqnum_id"`
	Name     string `json:"name"`
	Seqnum   uint64 `json:"seqnum"`
	Realtime uint64 `json:"realtime"` // microseconds
}

type checkpointVolatile struct {
	Machine   string `json:"machine"`
	Boot      string `json:"boot"`
	Monotonic uint64 `json:"monotonic"` // microseconds
}

// Checkpoint returns from where a later Reader goes on: behind the last entry that was given, in each sequence of files.
func (r *Reader) Checkpoint() string {
	r.prune()
	c := checkpoint{Version: 1, Streams: []checkpointStream{}}
	for key, s := range r.streams {
		c.Streams = append(c.Streams, checkpointStream{key.machine.String(), key.seqnumID.String(), key.name, s.position, s.realtime})
	}
	slices.SortFunc(c.Streams, func(a, b checkpointStream) int {
		return cmp.Or(cmp.Compare(a.Machine, b.Machine), cmp.Compare(a.SeqnumID, b.SeqnumID), cmp.Compare(a.Name, b.Name))
	})
	for machine, seen := range r.flushed {
		c.Volatile = append(c.Volatile, checkpointVolatile{machine.String(), seen.boot.String(), seen.monotonic})
	}
	slices.SortFunc(c.Volatile, func(a, b checkpointVolatile) int { return cmp.Compare(a.Machine, b.Machine) })
	b, err := json.Marshal(c)
	if err != nil { // it has nothing that JSON lacks
		return ""
	}
	return string(b)
}

// prune forgets streams that have no file any more when there are too many.
func (r *Reader) prune() {
	if len(r.streams) <= maxStreams {
		return
	}
	all := make([]*stream, 0, len(r.streams))
	for _, s := range r.streams {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *stream) int { return cmp.Compare(a.realtime, b.realtime) })
	for _, s := range all[:len(all)-maxStreams] {
		if len(s.files) == 0 {
			delete(r.streams, s.key)
		}
	}
}

func (r *Reader) restore(s string) error {
	var c checkpoint
	if err := json.Unmarshal([]byte(s), &c); err != nil {
		return fmt.Errorf("journal checkpoint: %w", err)
	}
	if c.Version != 1 {
		return fmt.Errorf("journal checkpoint of version %d", c.Version)
	}
	for _, s := range c.Streams {
		machine, err := parseID(s.Machine)
		if err != nil {
			return fmt.Errorf("journal checkpoint: %w", err)
		}
		seqnumID, err := parseID(s.SeqnumID)
		if err != nil {
			return fmt.Errorf("journal checkpoint: %w", err)
		}
		key := streamKey{machine, seqnumID, s.Name}
		r.streams[key] = &stream{key: key, position: s.Seqnum, realtime: s.Realtime}
	}
	for _, v := range c.Volatile {
		machine, err := parseID(v.Machine)
		if err != nil {
			return fmt.Errorf("journal checkpoint: %w", err)
		}
		boot, err := parseID(v.Boot)
		if err != nil {
			return fmt.Errorf("journal checkpoint: %w", err)
		}
		r.flushed[machine] = bootTime{boot, v.Monotonic}
	}
	return nil
}

// String returns the id as systemd writes it: 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

func parseID(s string) (ID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(ID{}) {
		return ID{}, fmt.Errorf("id %q is not 32 hexadecimal digits", s)
	}
	return ID(b), nil
}
