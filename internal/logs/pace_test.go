// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// burst writes more than can wait to be told.
func burst(t *testing.T, path string) (lines int) {
	t.Helper()
	lines = 300_000 // each reading has 2,048 at most
	all := make([]string, lines)
	for i := range all {
		all[i] = fmt.Sprintf("INFO message %d of many", i)
	}
	appendTo(t, path, all...)
	return lines
}

func TestABurstIsNotLostToWhoIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	lines := burst(t, path)
	var told atomic.Int64
	l := open(t, Options{Forward: ForwardAll, Tell: func(_ context.Context, _ *Owner, what []Message) {
		time.Sleep(5 * time.Millisecond)
		told.Add(int64(len(what)))
	}})
	defer closeLogs(t, l)
	l.Owner(t.Context(), "a").Follow(plain(path))
	until(t, "all messages", func() bool { return told.Load() == int64(lines) })
	if n := l.Stats().Untold; n != 0 {
		t.Errorf("%d messages were not told", n)
	}
}

func TestLogsAreCountedWhileNobodyIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	lines := burst(t, path)
	release := make(chan struct{})
	var told atomic.Uint64
	l := open(t, Options{Forward: ForwardAll, Tell: func(_ context.Context, _ *Owner, what []Message) {
		<-release
		told.Add(uint64(len(what)))
	}})
	o := l.Owner(t.Context(), "a")
	o.Follow(plain(path))
	until(t, "all is counted", func() bool { return messages(o) == uint64(lines) })
	close(release)
	closeLogs(t, l)
	if all := told.Load() + l.Stats().Untold; all != uint64(lines) || l.Stats().Untold == 0 {
		t.Errorf("%d messages were told and %d not, of %d", told.Load(), l.Stats().Untold, lines)
	}
}
