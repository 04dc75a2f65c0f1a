// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func dockerLine(text, stream string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(true)
	e.Encode(struct {
		Log    string    `json:"log"`
		Stream string    `json:"stream"`
		Time   time.Time `json:"time"`
	}{text, stream, time.Unix(1795000000, 123456789).UTC()})
	return b.String()
}

// Parts of a message lie in two files, and a line of the other stream lies between them.
func TestDockerPartsAreJoinedOverRotationAndRestart(t *testing.T) {
	part := strings.Repeat("é<", 5000)
	l := newLog(t, "id-json.log", dockerLine("one\n", "stdout")+dockerLine(part, "stdout")+dockerLine("err\n", "stderr"))
	f := follow(t, testOptions(), nil, l.source(DockerJSON, Beginning()))
	f.want("one", "err")
	f.stop()
	saved := f.Checkpoint()
	l.must(os.Rename(l.path, l.path+".1"))
	l.create()
	l.write(dockerLine("end\n", "stdout") + "{\"log\":\nnot a record\n" + dockerLine("last\r\n", "stderr"))
	f = follow(t, testOptions(), saved, l.source(DockerJSON, Beginning()))
	f.want(part+"end", "last")
	want := Line{Text: []byte("last"), Time: time.Unix(1795000000, 123456789).UTC(), Stream: Stderr}
	if diff := cmp.Diff(want, f.lines["a"][1]); diff != "" {
		t.Error(diff)
	}
	if s := f.Stats(); s.Invalid != 2 {
		t.Errorf("%d invalid records, want 2", s.Invalid)
	}
}

// As TestDockerPartsAreJoinedOverRotationAndRestart, with a record of which a part is there yet, and one that is damaged.
func TestDockerLocal(t *testing.T) {
	part := strings.Repeat("é<", 4096)
	torn := localRecord(" and more", "stdout", localMore)
	l := newLog(t, "container.log", localRecord("one", "stdout", localWhole)+localRecord(part, "stdout", localMore)+
		localRecord("err", "stderr", localWhole)+torn[:9])
	f := follow(t, testOptions(), nil, l.source(DockerLocal, Beginning()))
	f.want("one", "err")
	want := Line{Text: []byte("err"), Time: time.Unix(0, 1795224823204430901).UTC(), Stream: Stderr}
	if diff := cmp.Diff(want, f.lines["a"][1]); diff != "" {
		t.Error(diff)
	}
	f.stop()
	saved := f.Checkpoint()
	l.write(torn[9:])
	l.must(os.Rename(l.path, l.path+".1"))
	l.create()
	l.write(localRecord(", end", "stdout", localLast) + "\x00\x00\x00\x03damaged" + localRecord("last\r", "stdout", localWhole))
	f = follow(t, testOptions(), saved, l.source(DockerLocal, Beginning()))
	f.want(part+" and more, end", "last")
	if s := f.Stats(); s.Invalid != 1 {
		t.Errorf("%d invalid records, want 1", s.Invalid)
	}
}

// Where reading begins in a file that was there before.
func TestStartOfDockerLocal(t *testing.T) {
	const lines = 20_000
	var text strings.Builder
	var ends []uint64
	for i := range lines {
		text.WriteString(localRecord(fmt.Sprintf("line %d %s", i, strings.Repeat("x", i%50)), "stdout", localWhole))
		ends = append(ends, uint64(text.Len())) //nolint:gosec // small
	}
	for _, tt := range []struct {
		name   string
		start  Start
		tail   string // what the file ends with
		first  int
		broken int // where it is damaged
	}{
		{name: "end", start: End(), first: lines},
		{name: "end, where a record is not whole", start: End(), tail: localRecord(fmt.Sprint("line ", lines, " "), "stdout", localWhole)[:10], first: lines},
		{name: "begin of a record", start: At(ends[12_345]), first: 12_346},
		{name: "in a record", start: At(ends[12_345] - 1), first: 12_345},
		{name: "damaged before", start: At(ends[12_345]), first: 12_346, broken: 100},
		{name: "damaged before, in a record", start: At(ends[12_345] - 9), first: 12_346, broken: 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := []byte(text.String() + tt.tail)
			if tt.broken > 0 {
				b[ends[tt.broken]] = 0xff
			}
			l := newLog(t, "container.log", string(b))
			f := follow(t, testOptions(), nil, l.source(DockerLocal, tt.start))
			f.found()
			time.Sleep(20 * time.Millisecond)
			l.write(localRecord(fmt.Sprint("line ", lines, " "), "stdout", localWhole)[len(tt.tail):])
			var want []string
			for i := tt.first; i <= lines; i++ {
				want = append(want, fmt.Sprintf("line %d %s", i, strings.Repeat("x", i%lines%50)))
			}
			f.want(want...)
		})
	}
}

func TestCRI(t *testing.T) {
	const stamp = "2026-11-21T01:33:43.204430901Z "
	l := newLog(t, "0.log", stamp+"stdout F one\n"+stamp+"stdout P tw\n"+stamp+"stderr P th\n"+stamp+"stdout F o\n"+
		"2026-11-21T02:33:43.5+01:00 stderr F ree\n"+stamp+"stdout F \n"+stamp+"stdout X bad\nbad\n"+stamp+"stderr P open\n")
	l.must(os.WriteFile(l.path+".20261121-013343.gz", []byte("\x1f\x8b"), 0o600))
	f := follow(t, testOptions(), nil, l.source(CRI, Beginning()))
	f.want("one", "two", "three", "")
	f.Forget("a")
	f.want("one", "two", "three", "", "open")
	at := time.Date(2026, 11, 21, 1, 33, 43, 204430901, time.UTC)
	if got := f.lines["a"][2]; got.Stream != Stderr || !got.Time.Equal(at) {
		t.Errorf("got %v %v, want the first part's time and stream", got.Stream, got.Time)
	}
	f.untilStats("counted", func(s Stats) bool { return s.Invalid == 2 })
	f.until(func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.forgotten["a"] }, func() string { return "forgotten" })
}

func TestLongLinesAreCut(t *testing.T) {
	o := testOptions()
	o.MaxLine = 1000
	l := newLog(t, "app.log", "")
	f := follow(t, o, nil, l.source(Plain, Beginning()))
	fits, tooLong := strings.Repeat("f", 1000), strings.Repeat("x", 1001)
	l.write(fits + "\r\n" + tooLong + "\n" + fits)
	l.write("\nafter\n")
	f.want(fits, tooLong[:1000], fits, "after")
	if got := f.lines["a"]; got[0].Cut || !got[1].Cut || got[2].Cut {
		t.Error("want the second line cut, and only that")
	}
	if s := f.Stats(); s.Cut != 1 {
		t.Errorf("%d cut, want 1", s.Cut)
	}
}

func TestLineOf100MBNeedsNoMemory(t *testing.T) {
	l := newLog(t, "app.log", "")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.found()
	var before, after runtime.MemStats
	piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := l.f.Write(piece); err != nil {
			t.Skipf("needs 100 MB: %v", err)
		}
	}
	l.write("\nafter\n")
	f.until(func() bool { return len(f.taken("a")) == 2 }, func() string { return "two lines" })
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d bytes allocated for one line", used)
	}
	if got := f.taken("a"); len(got[0]) != defaultMaxLine || got[1] != "after" {
		t.Errorf("got lines of %d and %d bytes", len(got[0]), len(got[1]))
	}
}

func TestNotPermittedIsTriedAgainAndLoggedOnce(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	o := testOptions()
	o.Logger = zap.New(core)
	l := newLog(t, "app.log", "one\n")
	loop := filepath.Join(t.TempDir(), "loop.log")
	l.must(os.Symlink(loop, loop)) // root may read anything, but not this
	f := follow(t, o, nil, Source{Key: "a", Path: loop, Start: Beginning()})
	f.untilStats("tried", func(s Stats) bool { return s.Errors >= 3 })
	if n := logs.Len(); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
	l.must(os.Remove(loop))
	l.must(os.Rename(l.path, loop))
	f.want("one")
}

func TestRootIsNotLeft(t *testing.T) {
	root := t.TempDir()
	outside := newLog(t, "secret.log", "secret\n")
	l := &logFile{t: t, path: filepath.Join(root, "app.log")}
	l.create()
	l.write("one\n")
	l.must(os.Symlink("/app.log", filepath.Join(root, "absolute.log")))
	l.must(os.Symlink(outside.path, filepath.Join(root, "out.log")))
	f := follow(t, testOptions(), nil, Source{Key: "a", Root: root, Path: "/absolute.log", Start: Beginning()},
		Source{Key: "out", Root: root, Path: "/out.log", Start: Beginning()})
	f.want("one")
	wait(5)
	if got := f.taken("out"); got != nil {
		t.Errorf("read %q through a symlink that leads out", got)
	}
	before := l.f
	l.must(os.Rename(l.path, l.path+".1"))
	l.create()
	before.WriteString("two\n")
	l.write("three\n")
	f.until(func() bool { return len(f.taken("a")) == 3 }, func() string { return fmt.Sprint(f.taken("a")) })
}

func TestNothingIsReadWhileTheCallbackIsSlow(t *testing.T) {
	l := newLog(t, "app.log", strings.Repeat("line\n", 3*maxBatch))
	w := New(testOptions())
	w.Follow(l.source(Plain, Beginning()))
	enter, leave := make(chan int), make(chan struct{})
	ctx, cancel := contextOf(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx, func(_ string, lines []Line) { enter <- len(lines); <-leave })
	}()
	total := <-enter
	var saved struct {
		Sources map[string]struct{ Files []struct{ Offset int } }
	}
	if err := json.Unmarshal(w.Checkpoint(), &saved); err != nil || saved.Sources["a"].Files[0].Offset != 0 {
		t.Errorf("place is %+v before the lines were taken, %v", saved, err)
	}
	if s := w.Stats(); s.Lines != 0 {
		t.Errorf("%d lines counted before they were taken", s.Lines)
	}
	leave <- struct{}{}
	for total < 3*maxBatch {
		total += <-enter
		leave <- struct{}{}
	}
	cancel()
	<-done
	if s := w.Stats(); s.Lines != 3*maxBatch || s.OpenFiles != 0 {
		t.Errorf("%+v", s)
	}
}
