// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestLinesOfAFileThatGrows(t *testing.T) {
	l := newLog(t, "app.log", "old\nhalf")
	f := follow(t, testOptions(), nil, l.source(Plain, End()))
	f.found()
	for _, piece := range []string{" a", " line", " in", " pieces\nne", "xt\r\n", "\n", "\x00nul\xff\n", "unfinished"} {
		l.write(piece)
		wait(2)
	}
	f.want("half a line in pieces", "next", "", "\x00nul\xff")
	f.Forget("a")
	f.want("half a line in pieces", "next", "", "\x00nul\xff", "unfinished")
	f.untilStats("forgotten", func(s Stats) bool { return s.Sources == 0 && s.OpenFiles == 0 })
}

func TestStart(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start Start
		want  []string
	}{
		{"beginning", Beginning(), []string{"one", "two", "end"}},
		{"end", End(), []string{"end"}},
		{"at a line", At(4), []string{"two", "end"}},
		{"within a line", At(6), []string{"two", "end"}},
		{"past the end", At(1000), []string{"one", "two", "end"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLog(t, "app.log", "one\ntwo\n")
			f := follow(t, testOptions(), nil, l.source(Plain, tt.start))
			f.found()
			l.write("end\n")
			f.want(tt.want...)
		})
	}
}

func TestRenameAndCreate(t *testing.T) {
	l := newLog(t, "app.log", "one\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("one")
	before := l.f
	l.must(os.Rename(l.path, l.path+".1"))
	before.WriteString("two\n")
	l.create()
	l.write("four\n")
	before.WriteString("three without end")
	f.until(func() bool { return len(f.taken("a")) == 4 }, func() string { return strings.Join(f.taken("a"), "|") })
	got := map[string]bool{}
	for _, line := range f.taken("a") {
		got[line] = true
	}
	for _, line := range []string{"one", "two", "three without end", "four"} {
		if !got[line] {
			t.Errorf("no %q in %q", line, f.taken("a"))
		}
	}
	f.untilStats("the renamed file is closed", func(s Stats) bool { return s.OpenFiles == 1 && s.Rotations == 1 })
}

func TestDeleteAndCreate(t *testing.T) {
	l := newLog(t, "app.log", "one\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("one")
	before := l.f
	l.must(os.Remove(l.path))
	before.WriteString("two\n")
	f.want("one", "two")
	l.create()
	l.write("three\n")
	f.want("one", "two", "three")
}

// Whoever follows a file hears that it is gone for good, and may still see it come back.
func TestGone(t *testing.T) {
	var gone atomic.Int64
	o := testOptions()
	o.GoneAfter = 300 * time.Millisecond
	o.Gone = func(key string) {
		if key != "a" {
			t.Errorf("%q is gone", key)
		}
		gone.Add(1)
	}
	l := newLog(t, "app.log", "one\n")
	f := follow(t, o, nil, l.source(Plain, Beginning()))
	f.want("one")
	time.Sleep(500 * time.Millisecond)
	if n := gone.Load(); n != 0 {
		t.Fatalf("told %d times, with a file at the path", n)
	}
	l.must(os.Remove(l.path))
	time.Sleep(20 * time.Millisecond)
	_, err := l.f.WriteString("two\n")
	l.must(err)
	f.want("one", "two")
	f.until(func() bool { return gone.Load() >= 2 }, func() string { return "told twice" })
	l.create()
	l.write("three\n")
	f.want("one", "two", "three")
	before := gone.Load()
	time.Sleep(500 * time.Millisecond)
	if n := gone.Load(); n != before {
		t.Errorf("told %d times more, with a file at the path", n-before)
	}
	l.must(os.Remove(l.path)) // and nobody writes to it
	f.until(func() bool { return gone.Load() > before }, func() string { return "told again" })
	f.untilStats("no errors, and nothing open", func(s Stats) bool { return s.Errors == 0 && s.OpenFiles == 0 })
}

// Two rotations between two looks: one file came and went unseen.
func TestFileThatCameAndWentUnseen(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "one\n")
	f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("one")
	time.Sleep(50 * time.Millisecond)
	l.write("two\n")
	l.must(os.Rename(l.path, l.path+".2"))
	l.create()
	l.write("three\n")
	l.must(os.Rename(l.path, l.path+".1"))
	l.create()
	l.write("four\n")
	f.want("one", "two", "three", "four")
}

func TestCopyTruncate(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, tt := range []struct {
		name  string
		after string
	}{
		{"stays shorter", "new\n"},
		{"grows past the old size", "new\n" + strings.Repeat(long+"\n", 50)},
		{"grows to the old size", strings.Repeat("y", 3*101-1) + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLog(t, "app.log", long+"\n"+long+"\n"+long+"\n")
			f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
			f.want(long, long, long)
			l.write("unread\n")
			b, err := os.ReadFile(l.path)
			l.must(err)
			l.must(os.WriteFile(l.path+".1", b, 0o600))
			l.must(os.Truncate(l.path, 0))
			l.write(tt.after)
			want := append([]string{long, long, long, "unread"}, strings.Split(strings.TrimSuffix(tt.after, "\n"), "\n")...)
			f.want(want...)
			f.untilStats("counted", func(s Stats) bool { return s.Truncations == 1 && s.Lost == Lost{} })
		})
	}
}

// A writer without O_APPEND goes on at its old place: the file is a hole and then text.
func TestTruncatedUnderAWriterThatDoesNotAppend(t *testing.T) {
	l := newLog(t, "app.log", "")
	w, err := os.OpenFile(l.path, os.O_WRONLY, 0)
	l.must(err)
	defer w.Close()
	w.WriteString(strings.Repeat("x", 300_000) + "\none\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.until(func() bool { return len(f.taken("a")) == 2 }, func() string { return "two lines" })
	l.must(os.Truncate(l.path, 0))
	w.WriteString("two\n")
	f.until(func() bool { return len(f.taken("a")) == 3 }, func() string { return "three lines" })
	if got := f.taken("a")[2]; got != "two" {
		t.Errorf("got %.40q, want two", got)
	}
}

func TestFileThatAppearsLate(t *testing.T) {
	l := &logFile{t: t, path: filepath.Join(t.TempDir(), "later", "app.log")}
	f := follow(t, testOptions(), nil, l.source(Plain, End()))
	wait(3)
	l.must(os.Mkdir(filepath.Dir(l.path), 0o700))
	l.create()
	l.write("one\n")
	f.want("one")
	if s := f.Stats(); s.Errors != 0 {
		t.Errorf("%d errors, want none: a file that is not there yet is none", s.Errors)
	}
}

func TestSymlinkThatIsPointedElsewhere(t *testing.T) {
	l := newLog(t, "0.log", "one\n")
	first := l.f
	dir := filepath.Dir(l.path)
	link := filepath.Join(t.TempDir(), "container.log")
	l.must(os.Symlink(l.path, link))
	f := follow(t, testOptions(), nil, Source{Key: "a", Path: link, Start: Beginning()})
	f.want("one")
	l.path = filepath.Join(dir, "1.log")
	l.create()
	l.write("three\n")
	first.WriteString("two\n")
	l.must(os.Symlink(l.path, link+".new"))
	l.must(os.Rename(link+".new", link))
	f.want("one", "two", "three")
}

func TestWhatIsNoFileIsNotOpened(t *testing.T) {
	l := newLog(t, "app.log", "")
	l.must(os.Remove(l.path))
	l.must(syscall.Mkfifo(l.path, 0o600))
	other := newLog(t, "b.log", "one\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()), Source{Key: "b", Path: other.path, Start: Beginning()},
		Source{Key: "zero", Path: "/dev/zero", Start: Beginning()})
	f.wantOf("b", "one")
	f.untilStats("refused", func(s Stats) bool { return s.Errors >= 2 && s.OpenFiles == 1 })
	l.must(os.Remove(l.path))
	l.create()
	l.write("two\n")
	f.want("two")
}

// Attributes of the kernel are regular files whose reads may fail as those of a broken disk do.
func TestReadErrorIsTriedAgain(t *testing.T) {
	const speed = "/sys/class/net/lo/speed"
	if _, err := os.ReadFile(speed); err == nil || os.IsNotExist(err) {
		t.Skipf("%s can be read", speed)
	}
	l := newLog(t, "app.log", "one\n")
	link := filepath.Join(t.TempDir(), "link.log")
	l.must(os.Symlink(speed, link))
	f := follow(t, testOptions(), nil, Source{Key: "a", Path: link, Start: Beginning()})
	f.untilStats("errors", func(s Stats) bool { return s.Errors >= 2 })
	l.must(os.Symlink(l.path, link+".new"))
	l.must(os.Rename(link+".new", link))
	f.want("one")
}

func TestManyFilesWithFewDescriptors(t *testing.T) {
	const files, open = 10_000, 500
	o := testOptions()
	o.MaxOpen = open
	dir := t.TempDir()
	f := follow(t, o, nil)
	logs := make([]*logFile, files)
	for i := range logs {
		l := &logFile{t: t, path: filepath.Join(dir, fmt.Sprintf("app-%dx.log", i))}
		f, err := os.Create(l.path)
		l.must(err)
		f.WriteString("one\n")
		f.Close()
		logs[i] = l
	}
	for _, l := range logs {
		f.Follow(Source{Key: l.path, Path: l.path, Start: Beginning()})
	}
	f.untilStats("all read", func(s Stats) bool { return s.Lines == files && s.OpenFiles <= open })
	for i, l := range logs {
		if i%500 == 0 { // renamed while it is closed
			l.must(os.Rename(l.path, l.path+".1"))
			appendTo(t, l.path+".1", "two\n")
		} else {
			appendTo(t, l.path, "two\n")
		}
		appendTo(t, l.path, "three\n")
	}
	for _, l := range logs {
		f.wantOf(l.path, "one", "two", "three")
	}
	f.untilStats("few are open", func(s Stats) bool { return s.OpenFiles <= open })
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
