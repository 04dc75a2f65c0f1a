// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// copyTruncate makes a copy of the file and empties it.
func (l *logFile) copyTruncate(to string) {
	l.t.Helper()
	b, err := os.ReadFile(l.path)
	l.must(err)
	l.must(os.WriteFile(to, b, 0o600))
	l.must(os.Truncate(l.path, 0))
}

// What is in a file when it is found is read after what is older. Meanwhile it may be truncated: it must be known by then.
func TestFileThatIsTruncatedBeforeItIsRead(t *testing.T) {
	needsBirth(t)
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			l := newLog(t, "app.log", "a first line of some length\n")
			f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
			f.whenGiven("a second line of some length", func() {
				l.copyTruncate(l.path + ".2")
				l.write("a fourth line, longer than all that was there before it came\n")
				if restart {
					f.cancel()
				}
			})
			f.want("a first line of some length")
			time.Sleep(30 * time.Millisecond) // more than the kernel's clock may be behind
			old := l.f
			l.must(os.Rename(l.path, l.path+".1"))
			l.create()
			l.write("a third line of some length\n")
			_, err := old.WriteString("a second line of some length\n")
			l.must(err)
			want := []string{
				"a first line of some length", "a second line of some length", "a third line of some length",
				"a fourth line, longer than all that was there before it came",
			}
			if restart {
				f.until(func() bool { return len(f.taken("a")) == 2 }, func() string { return "two lines" })
				f.stop()
				f = newLooking(t, testOptions(), f.Checkpoint(), l.source(Plain, Beginning()))
				want = want[2:]
			}
			f.want(want...)
			f.untilStats("counted", func(s Stats) bool { return s.Truncations == 1 && s.Lost == Lost{} })
		})
	}
}

// A copy that is there before the file was seen and truncated has nothing but what is in the file.
func TestCopyOfAFileThatIsNotTruncatedYet(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "a first line of some length\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("a first line of some length")
	time.Sleep(30 * time.Millisecond)
	other := filepath.Join(t.TempDir(), "app.log")
	next := &logFile{t: t, path: other}
	next.create()
	next.write("a second line of some length\n")
	time.Sleep(30 * time.Millisecond)
	l.must(os.WriteFile(l.path+".2", []byte("a second line of some length\n"), 0o600))
	l.must(os.Rename(l.path, l.path+".1"))
	l.must(os.Rename(other, l.path))
	f.want("a first line of some length", "a second line of some length")
	f.untilStats("the rotated file is closed", func(s Stats) bool { return s.OpenFiles == 1 })
	next.path = l.path
	next.write("a third line\n")
	next.copyTruncate(l.path + ".2")
	next.write("a fourth line\n")
	f.want("a first line of some length", "a second line of some length", "a third line", "a fourth line")
	f.untilStats("copies are closed", func(s Stats) bool { return s.OpenFiles == 1 })
	f.want("a first line of some length", "a second line of some length", "a third line", "a fourth line")
}

// What is new at a path may have been rotated before it is looked at for the first time.
func TestRotatedBeforeItIsFound(t *testing.T) {
	needsBirth(t)
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprint("gone ", gone), func(t *testing.T) {
			l := newLog(t, "app.log", "of another life\n")
			l.must(os.Rename(l.path, l.path+".4"))
			time.Sleep(50 * time.Millisecond)
			start, o := BeginningSince(time.Now()), testOptions()
			var f *looking
			if gone {
				start = End()
				f = newLooking(t, o, nil, l.source(Plain, start))
				f.lookAll()
				time.Sleep(50 * time.Millisecond)
			}
			for i := 3; i > 0; i-- {
				l.create()
				l.write(fmt.Sprintf("%d files before the last one\n", i))
				l.must(os.Rename(l.path, fmt.Sprint(l.path, ".", i)))
				nextTick(t)
			}
			l.create()
			l.write("the last one, copied\n")
			l.copyTruncate(l.path + ".0")
			l.write("the last one\n")
			if !gone {
				f = newLooking(t, o, nil, l.source(Plain, start))
			}
			want := []string{
				"3 files before the last one", "2 files before the last one", "1 files before the last one", "the last one, copied", "the last one",
			}
			f.want(want...)
			f.untilStats("the others are closed", func(s Stats) bool { return s.OpenFiles == 1 && s.Lost == Lost{} })
			f.stop()
			f = newLooking(t, o, f.Checkpoint(), l.source(Plain, start))
			l.write("after a restart\n")
			f.want("after a restart")
		})
	}
}

// While nobody looks, a file may be rotated often.
func TestManyRotationsUnseen(t *testing.T) {
	needsBirth(t)
	const rotations = 100
	l := newLog(t, "app.log", "line 0 of a file\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("line 0 of a file")
	f.stop()
	time.Sleep(30 * time.Millisecond)
	var want []string
	for n := range rotations {
		l.must(os.Rename(l.path, fmt.Sprintf("%s.%d", l.path, rotations-n)))
		l.f.Close()
		l.create()
		text := fmt.Sprintf("line %d of a file", n+1)
		l.write(text + "\n")
		want = append(want, text)
		nextTick(t) // they are read in the order of the kernel's clock
	}
	o := testOptions()
	o.MaxOpen = 8
	f = follow(t, o, f.Checkpoint(), l.source(Plain, Beginning()))
	f.want(want...)
	f.untilStats("few are open", func(s Stats) bool { return s.OpenFiles == 1 && s.Lost == Lost{} })
	f.want(want...)
}

// With few descriptors a rotated file is read to its end at once, however long that takes, and also over restarts.
func TestLargeRotatedFilesWithFewDescriptors(t *testing.T) {
	needsBirth(t)
	const lines = 200_000
	l := newLog(t, "app.log", "line 000000000 of a writer\n")
	o := testOptions()
	o.MaxOpen = 1
	f := follow(t, o, nil, l.source(Plain, Beginning()))
	f.want("line 000000000 of a writer")
	f.stop()
	saved := f.Checkpoint()
	time.Sleep(30 * time.Millisecond)
	var b strings.Builder
	for n := 1; n < lines; n++ {
		fmt.Fprintf(&b, "line %09d of a writer that says the same thing at all times, %s\n", n, strings.Repeat("and more of it, ", 6))
		if n == lines*3/4 || n == lines*4/5 {
			l.write(b.String())
			b.Reset()
			l.must(os.Rename(l.path, l.path+"."+fmt.Sprint(n)))
			l.create()
			time.Sleep(30 * time.Millisecond)
		}
	}
	l.write(b.String())
	given, wrong := map[string]int{}, 0
	for round := 0; len(given) < lines-1 && round < 100; round++ {
		w := New(o)
		l.must(w.Restore(saved))
		w.Follow(l.source(Plain, Beginning()))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		now := 0
		w.Run(ctx, func(_ string, batch []Line) {
			for _, line := range batch {
				if len(line.Text) > 200 {
					wrong++
				}
				given[string(line.Text)]++
			}
			if now += len(batch); now > 10_000 || len(given) == lines-1 {
				cancel()
			}
		})
		cancel()
		if s := w.Stats(); (s.Lost != Lost{}) {
			t.Fatalf("%+v", s)
		}
		saved = w.Checkpoint()
	}
	twice := 0
	for _, n := range given {
		twice += n - 1
	}
	if len(given) != lines-1 || twice > 0 || wrong > 0 {
		t.Errorf("%d lines, want %d, %d came twice, %d are not as they were written", len(given), lines-1, twice, wrong)
	}
}

// Copied, truncated, written anew and moved away, all between two looks.
func TestFileThatIsTruncatedAndMovedUnseen(t *testing.T) {
	needsBirth(t)
	for _, remove := range []bool{false, true} {
		t.Run(fmt.Sprint("remove ", remove), func(t *testing.T) {
			l := newLog(t, "app.log", "a first line of some length\n")
			f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
			f.want("a first line of some length")
			time.Sleep(50 * time.Millisecond)
			l.write("a second line of some length\n")
			l.copyTruncate(l.path + ".2")
			l.write("a third line, which is longer than all that was before it in the file\n")
			if remove {
				l.must(os.Remove(l.path))
			} else {
				l.must(os.Rename(l.path, l.path+".1"))
			}
			l.create()
			l.write("a fourth line\n")
			f.want("a first line of some length", "a second line of some length",
				"a third line, which is longer than all that was before it in the file", "a fourth line")
			f.untilStats("all are closed", func(s Stats) bool { return s.OpenFiles == 1 && s.Lost == Lost{} })
			f.want("a first line of some length", "a second line of some length",
				"a third line, which is longer than all that was before it in the file", "a fourth line")
		})
	}
}

// As above, while nobody looks at all.
func TestFileThatIsTruncatedAndRenamedOverARestart(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "a first line of some length\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("a first line of some length")
	f.stop()
	time.Sleep(30 * time.Millisecond)
	l.write("a second line of some length\n")
	l.copyTruncate(l.path + ".2")
	l.write("a third line, which is longer than all that was before it in the file\n")
	l.must(os.Rename(l.path, l.path+".1"))
	l.create()
	l.write("a fourth line\n")
	f = follow(t, testOptions(), f.Checkpoint(), l.source(Plain, Beginning()))
	f.until(func() bool { return len(f.taken("a")) == 3 }, func() string { return "three lines" })
	f.untilStats("all are closed", func(s Stats) bool { return s.OpenFiles == 1 && s.Lost == Lost{} })
	if got := f.Stats().Lines; got != 3 {
		t.Errorf("%d lines, want 3: %q", got, f.taken("a"))
	}
}

// What a checkpoint knows is left to who had it, under whatever name it is found first.
func TestRenamedFileThatIsFoundByItsNewNameAfterARestart(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "one\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("one")
	f.stop()
	l.write("two\n")
	l.must(os.Rename(l.path, l.path+".1"))
	l.create()
	l.write("three\n")
	f = follow(t, testOptions(), f.Checkpoint(), Source{Key: "b", Path: l.path + ".1", Start: Beginning()})
	f.untilStats("it is refused", func(s Stats) bool { return s.Shared == 1 })
	f.Follow(l.source(Plain, Beginning()))
	f.want("two", "three")
	f.untilStats("it is closed", func(s Stats) bool { return s.Lines == 2 })
	wait(30)
	if got := f.taken("b"); got != nil {
		t.Errorf("%q came again", got)
	}
}

// An empty file is filled, copied, truncated and filled again between two looks: nothing in the file tells.
func TestEmptyFileThatIsFilledAndTruncatedUnseen(t *testing.T) {
	needsBirth(t)
	for _, truncate := range []bool{false, true} {
		t.Run(fmt.Sprint("truncate ", truncate), func(t *testing.T) {
			l := newLog(t, "app.log", "")
			f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
			f.lookAll()
			time.Sleep(50 * time.Millisecond)
			l.write("a first line of some length\n")
			want := []string{"a first line of some length"}
			if truncate {
				l.copyTruncate(l.path + ".1")
				l.write("a second line of some length\n")
				want = append(want, "a second line of some length")
			} else { // the copy is there already
				l.must(os.WriteFile(l.path+".1", []byte("a first line of some length\n"), 0o600))
			}
			f.want(want...)
			f.untilStats("copies are closed", func(s Stats) bool { return s.OpenFiles == 1 && s.Lost == Lost{} })
			f.want(want...)
		})
	}
}

// The first bytes that are remembered are those that were read, whatever the file has by then.
func TestFileThatIsWrittenAnewWhileItsLinesAreTaken(t *testing.T) {
	l := newLog(t, "app.log", "")
	fd, err := os.OpenFile(l.path, os.O_RDWR, 0)
	l.must(err)
	defer fd.Close()
	read := []byte("a first line of some length\n")
	l.write("another one, which is as long as that was, or longer\n")
	p := position{Offset: uint64(len(read))}
	p.setTail(read)
	p.growHead(int(fd.Fd()), read, make([]byte, maxHead))
	if p.HeadLen != 0 {
		t.Errorf("remembers what was not read: %+v", p)
	}
	l.must(os.WriteFile(l.path, read, 0o600))
	p.growHead(int(fd.Fd()), read, make([]byte, maxHead))
	if int(p.HeadLen) != len(read) || p.HeadHash != hash(read) {
		t.Errorf("does not remember what was read: %+v", p)
	}
}

// The last file of all came and went between two looks, and no other is at the path.
func TestLastFileThatCameAndWentUnseen(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "one line and more\n")
	f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("one line and more")
	time.Sleep(50 * time.Millisecond)
	l.must(os.Rename(l.path, l.path+".2"))
	l.create()
	l.write("two\n")
	l.must(os.Rename(l.path, l.path+".1"))
	f.want("one line and more", "two")
	time.Sleep(50 * time.Millisecond)
	l.create()
	l.write("three\n")
	f.want("one line and more", "two", "three")
	f.untilStats("the others are closed", func(s Stats) bool { return s.OpenFiles == 1 && s.Lost == Lost{} })
	f.want("one line and more", "two", "three")
}

// As above, while older lines are being read: the path is looked at meanwhile, the file is not.
func TestEmptyFileThatIsFilledAndTruncatedBeforeItsTurn(t *testing.T) {
	needsBirth(t)
	for _, rename := range []bool{false, true} {
		t.Run(fmt.Sprint("rename ", rename), func(t *testing.T) {
			const older = 200_000 // lines, more than are read at once
			l := newLog(t, "app.log", "a first line of some length\n")
			const long = "a line of those that are read before, of some length"
			f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
			f.whenGiven(long, func() {
				l.write("a second line of some length\n")
				l.copyTruncate(l.path + ".2")
				l.write("a third line of some length\n")
				if rename {
					l.must(os.Rename(l.path, l.path+".3"))
					l.create()
				}
				time.Sleep(50 * time.Millisecond)
			})
			f.want("a first line of some length")
			time.Sleep(30 * time.Millisecond)
			_, err := l.f.WriteString(strings.Repeat(long+"\n", older))
			l.must(err)
			next := l.path + ".next"
			n, err := os.Create(next)
			l.must(err)
			l.must(n.Close())
			l.must(os.Rename(l.path, l.path+".1"))
			l.must(os.Rename(next, l.path))
			l.create()
			f.until(func() bool { return len(f.taken("a")) >= older+3 }, func() string { return fmt.Sprint(len(f.taken("a")), " lines") })
			f.untilStats("the others are closed", func(s Stats) bool { return s.OpenFiles == 1 && s.Lost == Lost{} })
			got := map[string]int{}
			for _, line := range f.taken("a")[older+1:] {
				got[line]++
			}
			if diff := cmp.Diff(map[string]int{"a second line of some length": 1, "a third line of some length": 1}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A file that was rotated when the checkpoint was made had been truncated before, which nobody knew yet.
func TestRotatedFileOfACheckpointThatWasTruncated(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "a first line of some length\n")
	f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.whenGiven("a second line of some length", func() { f.cancel() })
	f.want("a first line of some length")
	time.Sleep(30 * time.Millisecond)
	first := l.f
	l.must(os.Rename(l.path, l.path+".1")) // in which there is more, so that nothing of the next is read before the end
	l.create()
	l.write("a third line of some length\n")
	_, err := first.WriteString("a second line of some length\n")
	l.must(err)
	f.until(func() bool { return len(f.taken("a")) == 2 }, func() string { return "two lines" })
	f.stop()
	saved := f.Checkpoint()
	time.Sleep(30 * time.Millisecond)
	l.copyTruncate(l.path + ".2")
	l.write("a fourth line, which is longer than all that was before it in the file\n")
	l.must(os.Rename(l.path, l.path+".3"))
	l.create()
	l.write("a fifth line\n")
	// One that was killed had looked, and no more.
	l.must(os.Rename(l.path, l.path+".4"))
	l.create()
	l.write("a sixth line\n")
	f = newLooking(t, testOptions(), saved, l.source(Plain, Beginning()))
	f.until(func() bool { return len(f.taken("a")) >= 4 }, func() string { return "four lines" })
	f.untilStats("the others are closed", func(s Stats) bool { return s.OpenFiles == 1 && s.Lost == Lost{} })
	got := map[string]int{}
	for _, line := range f.taken("a") {
		got[line]++
	}
	want := map[string]int{
		"a third line of some length": 1, "a fourth line, which is longer than all that was before it in the file": 1,
		"a fifth line": 1, "a sixth line": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// As above; here the other file is the one at the path by then.
func TestRotatedFileOfACheckpointIsFoundInItsCopy(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "a first line of some length\na second line of some length\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("a first line of some length", "a second line of some length")
	f.stop()
	time.Sleep(30 * time.Millisecond)
	l.write("a third line of some length\n")
	l.copyTruncate(l.path + ".1")
	l.write("a fourth line, which is longer than all that was before it in the file, by far: it has to be\n")
	l.must(os.Rename(l.path, l.path+".2"))
	l.create()
	l.write("a fifth line of some length\n")
	// A process looked at the path, and was killed before it read anything.
	info, err := place{path: l.path}.stat()
	l.must(err)
	var c savedCheckpoint
	l.must(json.Unmarshal(f.Checkpoint(), &c))
	s := c.Sources["a"]
	s.Files[0].Current = false
	s.Files = append(s.Files, savedFile{fileID: info.id, Current: true})
	s.Seen = time.Now().Add(time.Second).UnixNano()
	c.Sources["a"] = s
	saved, err := json.Marshal(c)
	l.must(err)
	f = follow(t, testOptions(), saved, l.source(Plain, Beginning()))
	f.until(func() bool { return len(f.taken("a")) >= 3 }, func() string { return strings.Join(f.taken("a"), "|") })
	f.untilStats("the others are closed", func(s Stats) bool { return s.OpenFiles == 1 && s.Lost == Lost{} && s.Lines == 3 })
}
