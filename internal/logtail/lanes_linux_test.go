// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

func TestADiskThatHangsHoldsUpItsOwnFilesAlone(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("a line\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	w := New(testOptions())
	hung, release := make(chan struct{}), make(chan struct{})
	var others atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.Follow(Source{Key: "hung", Path: write("hung"), Start: Beginning(), Disk: 7})
	go func() {
		defer close(done)
		w.Run(ctx, func(key string, lines []Line) {
			if key == "hung" {
				close(hung)
				<-release
				return
			}
			others.Add(int64(len(lines)))
		})
	}()
	<-hung
	const disks = 40 // more than there are goroutines; those beyond must not meet the one that hangs
	for i := range uint64(disks) {
		name := "log" + string(rune('a'+i))
		w.Follow(Source{Key: name, Path: write(name), Start: Beginning(), Disk: i % 12})
	}
	until(t, "the lines of the others", func() bool { return others.Load() == disks-3 }) // 3 are of disk 7
	if n := len(w.lanes); n > maxLanes {
		t.Errorf("%d lanes", n)
	}
	close(release)
	until(t, "all lines", func() bool { return others.Load() == disks })
	cancel()
	<-done
}

func TestHoldIsBetweenGivingAndNoting(t *testing.T) {
	c := newTally()
	logs, sources, stop := torment(t, c, 4, []Format{Plain, CRI})
	for i := range sources {
		sources[i].Disk = uint64(i)
	}
	w, end := tail(t, nil, sources, c.take)
	for range 50 {
		w.Hold(func() {
			if lines, got := int64(w.Stats().Lines), c.taken.Load(); lines != got {
				t.Errorf("%d lines noted, %d given", lines, got)
			}
		})
		time.Sleep(2 * time.Millisecond)
	}
	stop()
	until(t, "all lines", func() bool {
		var all int
		for _, l := range logs {
			all += l.written
		}
		return c.taken.Load() == int64(all)
	})
	end()
}

func TestAFileIsReadForOneSourceAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.log")
	line := func(text string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	line("one")
	f := follow(t, testOptions(), nil, Source{Key: "a", Path: path, Start: Beginning()})
	until(t, "the first line", func() bool { return f.Stats().Lines == 1 })
	link := filepath.Join(dir, "link.log")
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	f.Follow(Source{Key: "b", Path: link, Start: Beginning()})
	until(t, "the second source is refused", func() bool { return f.Stats().Shared == 1 })
	line("two")
	until(t, "the second line", func() bool { return f.Stats().Lines == 2 })
	f.Forget("a")
	until(t, "the first source is gone", func() bool { return f.Stats().Sources == 1 })
	line("three")
	f.wantOf("b", "three") // what was before is the first one's
	if n := f.Stats().Shared; n != 1 {
		t.Errorf("counted as shared %d times", n)
	}
}

// A file that was renamed may be found by its new name, by who looks at what a process has open. It was read by then.
func TestAFileThatIsFoundByItsNewNameIsNotReadAgain(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "one\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("one")
	renamed := l.path + ".1"
	old := l.f
	l.must(os.Rename(l.path, renamed))
	l.create()
	l.write("two\n")
	f.Follow(Source{Key: "b", Path: renamed, Start: Beginning()})
	f.want("one", "two")
	f.untilStats("the renamed file is closed", func(s Stats) bool { return s.Rotations == 1 && s.OpenFiles <= 2 && s.Shared <= 1 })
	time.Sleep(200 * time.Millisecond) // longer than a file is kept open that is quiet
	if _, err := old.WriteString("three\n"); err != nil {
		t.Fatal(err)
	}
	f.wantOf("b", "three")
	f.want("one", "two")
}
