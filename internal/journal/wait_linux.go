// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// gather is how long to wait for more after a change, so that a storm of small writes is read in few looks.
const gather = 10 * time.Millisecond

// waiter waits for changes of directories and the files in them. journald writes through mappings, which inotify does not see,
// and therefore sets the file's size to what it is after writing, which it does.
type waiter struct {
	inotify *os.File // nil: there is none, and it only sleeps
	buf     []byte
}

func newWaiter(log *zap.Logger) waiter {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		log.Info("the journal is polled", zap.Error(os.NewSyscallError("inotify_init1", err)))
		return waiter{}
	}
	return waiter{inotify: os.NewFile(uintptr(fd), "inotify"), buf: make([]byte, 64<<10)}
}

// watch adds a directory, or nothing if it is watched already. What cannot be watched is polled.
func (w *waiter) watch(path string) {
	if w.inotify == nil {
		return
	}
	conn, err := w.inotify.SyscallConn()
	if err != nil {
		return
	}
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_ONLYDIR
	_ = conn.Control(func(fd uintptr) { _, _ = unix.InotifyAddWatch(int(fd), path, events) })
}

// wait returns when something may have changed, after limit, or when ctx ends.
func (w *waiter) wait(ctx context.Context, limit time.Duration) {
	if w.inotify == nil {
		sleep(ctx, limit)
		return
	}
	// The deadline comes first: AfterFunc may run at once.
	if err := w.inotify.SetReadDeadline(time.Now().Add(limit)); err != nil {
		sleep(ctx, limit)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = w.inotify.SetReadDeadline(time.Unix(1, 0)) })
	_, err := w.inotify.Read(w.buf)
	stop()
	if err == nil {
		sleep(ctx, min(gather, limit))
	}
}

func (w *waiter) close() error {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Close()
}
