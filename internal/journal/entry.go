// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"time"
)

// Entry is one record of a journal. It and all that it gives is valid until the next call of Next or Poll of its Reader.
type Entry struct {
	Realtime  time.Time     // when journald received it; the sender's own time is the field _SOURCE_REALTIME_TIMESTAMP, in microseconds
	Monotonic time.Duration // since the boot BootID
	BootID    ID
	MachineID ID
	// Seqnum counts the entries of SeqnumID, beginning at 1.
	Seqnum   uint64
	SeqnumID ID
	// Damaged tells that some of its fields could not be read.
	Damaged bool

	xorHash uint64
	fields  []Field
}

// Field is a part of an entry. An entry may have several of one name.
type Field struct {
	Name, Value []byte
	// Cut tells that the value is longer than what is given of it; see Options.MaxFieldBytes.
	Cut bool
}

// Fields returns all fields in the order of the journal, or those that Options.Fields names.
func (e *Entry) Fields() []Field { return e.fields }

// Field returns the value of the first field with that name, nil when there is none.
func (e *Entry) Field(name string) []byte {
	for i := range e.fields {
		if string(e.fields[i].Name) == name {
			return e.fields[i].Value
		}
	}
	return nil
}

// Cursor returns the entry's cursor as journalctl writes it (__CURSOR).
func (e *Entry) Cursor() string {
	return fmt.Sprintf("s=%x;i=%x;b=%x;m=%x;t=%x;x=%x",
		e.SeqnumID[:], e.Seqnum, e.BootID[:], e.Monotonic.Microseconds(), e.Realtime.UnixMicro(), e.xorHash)
}
