// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCheckpoint(t *testing.T) {
	needsBirth(t)
	for _, tt := range []struct {
		name  string
		while func(l *logFile) // nobody follows
		want  []string
	}{
		{"nothing", func(*logFile) {}, nil},
		{"appended", func(l *logFile) { l.write(" two\nthree\n") }, []string{"half two", "three"}},
		{"renamed once", func(l *logFile) {
			l.write(" two\n")
			l.must(os.Rename(l.path, l.path+".1"))
			l.create()
			l.write("three\n")
		}, []string{"half two", "three"}},
		{"renamed twice", func(l *logFile) {
			l.write(" two\n")
			l.must(os.Rename(l.path, l.path+".2"))
			l.create()
			l.write("three\n")
			l.must(os.Rename(l.path, l.path+"-20261121"))
			l.create()
			l.write("four\n")
		}, []string{"half two", "three", "four"}},
		{"deleted", func(l *logFile) {
			l.must(os.Remove(l.path))
			l.create()
			l.write("three\n")
		}, []string{"three"}},
		{"copied and truncated", func(l *logFile) {
			l.write(" two\n")
			b, err := os.ReadFile(l.path)
			l.must(err)
			l.must(os.WriteFile(l.path+".1", b, 0o600))
			l.must(os.Truncate(l.path, 0))
			l.write("three\n" + strings.Repeat("four\n", 20))
		}, append([]string{"half two", "three"}, strings.Split(strings.Repeat("four ", 19)+"four", " ")...)},
		{"written anew", func(l *logFile) {
			l.must(os.Truncate(l.path, 0))
			l.write("a whole other line that is longer than what was there\n")
		}, []string{"a whole other line that is longer than what was there"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLog(t, "app.log", "one and a few more words\nhalf")
			f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
			f.want("one and a few more words")
			f.stop()
			saved := f.Checkpoint()
			time.Sleep(30 * time.Millisecond) // more than the kernel's clock may be behind
			tt.while(l)
			f = follow(t, testOptions(), saved, l.source(Plain, End()))
			f.want(tt.want...)
			f.found()
			l.write("\nend\n")
			f.until(func() bool { g := f.taken("a"); return len(g) > 0 && g[len(g)-1] == "end" }, func() string { return "the end" })
		})
	}
}

func TestCheckpointKeepsWhatNobodyFollowsYet(t *testing.T) {
	l := newLog(t, "app.log", "one\n")
	f := follow(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.want("one")
	f.stop()
	between := New(Options{})
	if err := between.Restore(f.Checkpoint()); err != nil {
		t.Fatal(err)
	}
	l.write("two\n")
	f = follow(t, testOptions(), between.Checkpoint(), l.source(Plain, End()))
	f.want("two")
}

func TestRestoreRefusesWhatIsNoCheckpoint(t *testing.T) {
	for _, in := range []string{"", "{", `{"version":2}`, "[]", `{"version":1,"sources":{"a":{"files":[{"offset":-1}]}}}`} {
		if err := New(Options{}).Restore([]byte(in)); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%q: got %v, want ErrCheckpoint", in, err)
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"version":1,"sources":{"a":{"at":1,"seen":2,"files":[{"dev":1,"ino":2,"offset":9,"tail_len":4,"tail":1,"current":true}],` +
		`"joins":[{"stream":1,"text":"eA==","at":"2026-11-21T00:00:00Z"}],"done":[{"dev":1,"ino":3}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := New(Options{})
		if w.Restore(b) != nil {
			return
		}
		w.Follow(Source{Key: "a"})
		s := w.sources["a"]
		for _, file := range s.files {
			if !file.valid() || len(s.files) > maxRotated+1 {
				t.Fatalf("took over %+v", file.position)
			}
		}
		if err := New(Options{}).Restore(w.Checkpoint()); err != nil {
			t.Fatal(err)
		}
	})
}
