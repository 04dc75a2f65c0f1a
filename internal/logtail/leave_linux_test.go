// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A container may come back while its log is read to its end.
func TestFollowedAgainWhileItIsLeft(t *testing.T) {
	for _, last := range []string{"two\n", "two"} {
		t.Run(fmt.Sprintf("%q", last), func(t *testing.T) {
			l := newLog(t, "app.log", "one\n")
			src := l.source(Plain, Beginning())
			f := newLooking(t, testOptions(), nil, src)
			f.want("one")
			f.Forget("a")
			l.write(last)
			f.whenGiven("two", func() {
				if f.Follow(src) {
					t.Error("it was forgotten before it was read to its end")
				}
			})
			f.want("one", "two")
			l.write("three\n")
			f.want("one", "two", "three")
			f.lookAll()
			f.want("one", "two", "three")
			if s := f.Stats(); s.Sources != 1 || s.OpenFiles != 1 || (s.Lost != Lost{}) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A last line without an end is given when a file is left: the place is behind it for whoever goes on.
func TestPlaceBehindALineWithoutAnEnd(t *testing.T) {
	t.Run("another source", func(t *testing.T) {
		l := newLog(t, "app.log", "one\ntwo")
		f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
		f.want("one")
		link := filepath.Join(filepath.Dir(l.path), "link.log")
		l.must(os.Link(l.path, link))
		f.Follow(Source{Key: "b", Path: link, Start: Beginning()})
		f.untilStats("b is refused", func(s Stats) bool { return s.Shared == 1 })
		f.Forget("a")
		f.want("one", "two")
		l.write("\nthree\n")
		f.wantOf("b", "", "three")
	})
	t.Run("restart", func(t *testing.T) {
		needsBirth(t)
		l := newLog(t, "app.log", "one\ntwo\nthe end")
		f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
		f.want("one", "two")
		l.rotate(l.path + ".1")
		l.write("new\n")
		f.whenGiven("the end", func() { f.cancel() })
		f.want("one", "two", "new", "the end")
		f.stop()
		f = newLooking(t, testOptions(), f.Checkpoint(), l.source(Plain, End()))
		l.write("newer\n")
		f.want("newer")
		f.lookAll()
		f.want("newer")
	})
}

// Docker's log is a symlink to where another runtime's is expected. It is rotated in the directory that the link leads to.
func TestRotationBehindASymlink(t *testing.T) {
	needsBirth(t)
	for _, root := range []bool{false, true} {
		for _, gone := range []bool{false, true} {
			t.Run(fmt.Sprintf("root %v, gone %v", root, gone), func(t *testing.T) {
				l := newLog(t, "id-json.log", "one\n")
				top := filepath.Dir(filepath.Dir(l.path))
				pods := filepath.Join(top, "pods", "uid")
				l.must(os.MkdirAll(pods, 0o700))
				l.must(os.Symlink("../../"+filepath.Base(filepath.Dir(l.path))+"/id-json.log", filepath.Join(pods, "next.log")))
				l.must(os.Symlink("/pods/uid/next.log", filepath.Join(pods, "0.log")))
				if !root {
					l.must(os.Remove(filepath.Join(pods, "0.log")))
					l.must(os.Symlink(filepath.Join(pods, "next.log"), filepath.Join(pods, "0.log")))
				}
				src := Source{Key: "a", Path: filepath.Join(pods, "0.log"), Start: Beginning()}
				if root {
					src.Root, src.Path = top, "/pods/uid/0.log"
				}
				f := newLooking(t, testOptions(), nil, src)
				f.want("one")
				f.stop()
				l.write("two\n")
				nextTick(t)
				want := []string{"two", "three"}
				l.rotate(l.path + ".1")
				l.write("three\n")
				if gone {
					l.rename(l.path + ".0")
				}
				f = newLooking(t, testOptions(), f.Checkpoint(), src)
				f.want(want...)
			})
		}
	}
}
