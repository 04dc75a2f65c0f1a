// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Reader asks for tasks that live. Its methods may be called at the same time; they take turns.
type Reader struct {
	mu       sync.Mutex
	conn     *conn
	counting *counting
	exit     Exit // what came last
}

// OpenReader makes a Reader. The errors are those of Listen; that this process is not permitted shows only when it asks.
func OpenReader() (*Reader, error) {
	c, err := dial(0)
	if err != nil {
		return nil, err
	}
	return &Reader{conn: c, counting: &counting{procRoot: "/proc"}}, nil
}

// Thread returns what is counted of a task so far; tid is as this process sees it. The error is ErrGone when it has ended.
func (r *Reader) Thread(tid int) (Stats, error) { return r.ask(attrPID, tid) }

// Group returns what is counted of the tasks of a thread group, of those that have ended as well if it has more than
// one. The error is ErrGone when all have.
func (r *Reader) Group(tgid int) (Stats, error) { return r.ask(attrTGID, tgid) }

// Close closes the Reader's socket.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn.close()
}

func (r *Reader) ask(attr uint16, id int) (Stats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.askRecord(attr, id)
	switch {
	case errors.Is(err, unix.ESRCH):
		return Stats{}, fmt.Errorf("taskstats of %d: %w", id, ErrGone)
	case err != nil:
		return Stats{}, fmt.Errorf("taskstats of %d: %w", id, err)
	}
	return r.exit.Stats, nil
}

func (r *Reader) askRecord(attr uint16, id int) error {
	if r.conn.fd < 0 {
		return os.ErrClosed
	}
	var value [4]byte
	binary.NativeEndian.PutUint32(value[:], uint32(id))
	if err := r.conn.send(attr, value[:], 0); err != nil {
		return err
	}
	m, err := r.conn.answer()
	if err != nil {
		return err
	}
	found := false
	if err := eachRecord(m.body, r.counting.on(), &r.exit, func(*Exit) { found = true }); err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("an answer without a record: %w", errMalformed)
	}
	return nil
}
