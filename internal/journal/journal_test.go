// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record is an entry as the tests compare it: its cursor and the values of each field.
type record struct {
	Cursor string
	Fields map[string][]string
}

func recordOf(e *Entry) record {
	rec := record{Cursor: e.Cursor(), Fields: map[string][]string{}}
	for _, f := range e.Fields() {
		rec.Fields[string(f.Name)] = append(rec.Fields[string(f.Name)], string(f.Value))
	}
	return rec
}

// openDir reads the files of one directory.
func openDir(t testing.TB, dir string, opts Options) *Reader {
	t.Helper()
	opts.Dirs = []string{dir}
	r, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func pollAll(r *Reader) []record {
	var all []record
	for {
		e, ok := r.Poll()
		if !ok {
			return all
		}
		all = append(all, recordOf(e))
	}
}

func messages(all []record) []string {
	var m []string
	for _, rec := range all {
		m = append(m, strings.Join(rec.Fields["MESSAGE"], "+"))
	}
	return m
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// fill writes n entries with all kinds of values.
func (b *builder) fill(n int) []record {
	random := rand.New(rand.NewPCG(7, 8))
	var want []record
	for i := range n {
		realtime := uint64(1_700_000_000_000_000 + i*1000)
		payloads := []string{
			fmt.Sprintf("MESSAGE=line %d", i), "_SYSTEMD_UNIT=a.service", fmt.Sprintf("_PID=%d", i%10), "PRIORITY=6",
			"BINARY=\x00\xff\n=" + string(rune(i)), "TWICE=1", "TWICE=2", "EMPTY=",
		}
		if i%7 == 0 {
			payloads[0] = "MESSAGE=" + randomText(random, 300+random.IntN(900)) + strings.Repeat("0123456", 100)
		}
		b.entry(realtime, payloads...)
		rec := record{Fields: map[string][]string{}}
		rec.Cursor = fmt.Sprintf("s=%s;i=%x;b=%s;m=%x;t=%x;x=%x", b.id, b.seqnum, b.boot, realtime/2, realtime, xorOf(payloads))
		for _, p := range payloads {
			name, value, _ := strings.Cut(p, "=")
			rec.Fields[name] = append(rec.Fields[name], value)
		}
		want = append(want, rec)
	}
	return want
}

func xorOf(payloads []string) uint64 {
	x := uint64(0)
	for _, p := range payloads {
		x ^= jenkins([]byte(p))
	}
	return x
}

func eachShape(t *testing.T, f func(t *testing.T, b *builder)) {
	for _, compact := range []bool{false, true} {
		for _, keyed := range []bool{false, true} {
			for _, compression := range []byte{0, flagXZ, flagLZ4, flagZstd} {
				t.Run(fmt.Sprintf("compact=%v,keyed=%v,compression=%d", compact, keyed, compression), func(t *testing.T) {
					f(t, newBuilder(compact, keyed, compression))
				})
			}
		}
	}
}

func TestReaderGivesEveryFieldOfEveryShape(t *testing.T) {
	eachShape(t, func(t *testing.T, b *builder) {
		dir := t.TempDir()
		want := b.fill(500)
		writeFile(t, filepath.Join(dir, "machine", "system.journal"), b.file)
		r := openDir(t, dir, Options{Start: Beginning})
		if diff := cmp.Diff(want, pollAll(r)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if diff := cmp.Diff(Stats{Entries: 500, Files: 1}, r.Stats()); diff != "" {
			t.Errorf("stats: -want +got:\n%s", diff)
		}
	})
}

func TestReaderGoesOnWhereTheCheckpointIs(t *testing.T) {
	dir := t.TempDir()
	b := newBuilder(true, true, flagZstd)
	want := b.fill(300)
	writeFile(t, filepath.Join(dir, "m", "system.journal"), b.file)
	for _, at := range []int{1, 4, 5, 17, 100, 299, 300} {
		r := openDir(t, dir, Options{Start: Beginning})
		for range at {
			r.Poll()
		}
		checkpoint := r.Checkpoint()
		got := pollAll(openDir(t, dir, Options{Checkpoint: checkpoint}))
		if diff := cmp.Diff(want[at:], got, cmp.Transformer("nil", func(r []record) []record { return append([]record{}, r...) })); diff != "" {
			t.Errorf("after %d: -want +got:\n%s", at, diff)
		}
	}
}

func TestOpenRefusesWhatIsNoCheckpoint(t *testing.T) {
	for _, s := range []string{"x", `{"version":2}`, `{"version":1,"streams":[{"machine":"1"}]}`} {
		if _, err := Open(Options{Dirs: []string{t.TempDir()}, Checkpoint: s}); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func TestReaderBeginsAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m", "system.journal")
	b := newBuilder(true, true, 0)
	b.fill(40)
	writeFile(t, path, b.file)
	r := openDir(t, dir, Options{})
	if got := pollAll(r); got != nil {
		t.Fatalf("got %v before anything was written", got)
	}
	b.entry(1_800_000_000_000_000, "MESSAGE=new")
	overwrite(t, path, b.file)
	late := newBuilder(false, false, 0)
	late.setID(ID{9})
	late.entry(1_900_000_000_000_000, "MESSAGE=other file")
	writeFile(t, filepath.Join(dir, "late", "user-1.journal"), late.file)
	waitFor(t, r, []string{"new", "other file"})
}

// overwrite changes a file in place, as writing through a mapping does.
func overwrite(t testing.TB, path string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data[builderHeader:], builderHeader); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data[:builderHeader], 0); err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until the reader has given messages.
func waitFor(t testing.TB, r *Reader, want []string) {
	t.Helper()
	var got []string
	deadline := time.Now().Add(5 * time.Second)
	for len(got) < len(want) && time.Now().Before(deadline) {
		got = append(got, messages(pollAll(r))...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
}

func TestReaderGivesFilesThatWereRenamedOrDeletedWhileOpen(t *testing.T) {
	for _, inotify := range []bool{true, false} {
		dir := t.TempDir()
		path := filepath.Join(dir, "m", "system.journal")
		b := newBuilder(true, true, 0)
		b.entry(1_700_000_000_000_000, "MESSAGE=1")
		writeFile(t, path, b.file)
		r := openDir(t, dir, Options{Start: Beginning, PollInterval: 5 * time.Millisecond})
		if !inotify {
			r.waiter.close()
			r.waiter = waiter{}
		}
		waitFor(t, r, []string{"1"})
		b.entry(1_700_000_000_000_001, "MESSAGE=2")
		archived := filepath.Join(dir, "m", fmt.Sprintf("system@%s-1-1.journal", b.id))
		if err := os.Rename(path, archived); err != nil {
			t.Fatal(err)
		}
		overwrite(t, archived, b.file)
		next := newBuilder(true, true, 0)
		next.seqnum = 2
		next.entry(1_600_000_000_000_000, "MESSAGE=3")
		writeFile(t, path, next.file)
		waitNext(t, r, []string{"2", "3"})

		next.entry(1_600_000_000_000_001, "MESSAGE=4")
		overwrite(t, path, next.file)
		for _, p := range []string{archived, path} {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
		waitNext(t, r, []string{"4"})
		for deadline := time.Now().Add(5 * time.Second); r.Stats().Files > 0 && time.Now().Before(deadline); {
			r.Poll()
		}
		if diff := cmp.Diff(Stats{Entries: 4}, r.Stats()); diff != "" {
			t.Errorf("inotify %v: stats: -want +got:\n%s", inotify, diff)
		}
	}
}

// waitNext waits for messages by Next.
func waitNext(t *testing.T, r *Reader, want []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, message := range want {
		e, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", message, err)
		}
		if got := string(e.Field("MESSAGE")); got != message {
			t.Fatalf("got %s, want %s", got, message)
		}
	}
}

// journald fills in the machine's id a moment after it made the file.
func TestReaderKnowsAFileWhoseMachineWasNotYetWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m", "system.journal")
	b := newBuilder(true, true, 0)
	early := append([]byte{}, b.file...)
	clear(early[40:56])
	writeFile(t, path, early)
	r := openDir(t, dir, Options{Start: Beginning})
	if got := pollAll(r); got != nil {
		t.Fatalf("got %v", got)
	}
	b.entry(1_700_000_000_000_000, "MESSAGE=1")
	overwrite(t, path, b.file)
	waitFor(t, r, []string{"1"})
	if got := pollAll(openDir(t, dir, Options{Checkpoint: r.Checkpoint()})); got != nil {
		t.Errorf("got %v twice", got)
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	r := openDir(t, filepath.Join(t.TempDir(), "not there yet"), Options{PollInterval: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestReaderMergesFilesByTime(t *testing.T) {
	dir := t.TempDir()
	for n := range 3 {
		b := newBuilder(n%2 == 0, true, 0)
		b.setID(ID{byte(10 + n)})
		for i := range 50 {
			b.entry(uint64(1_700_000_000_000_000+i*30+n*10), fmt.Sprintf("MESSAGE=%03d", i*3+n))
		}
		writeFile(t, filepath.Join(dir, "m", fmt.Sprintf("user-%d.journal", n)), b.file)
	}
	var want []string
	for i := range 150 {
		want = append(want, fmt.Sprintf("%03d", i))
	}
	if diff := cmp.Diff(want, messages(pollAll(openDir(t, dir, Options{Start: Beginning})))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestReaderGivesRotatedFilesInOrderWhateverTheClock(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for n := range 4 {
		b := newBuilder(true, true, 0)
		b.seqnum = uint64(n * 100)
		for i := range 20 {
			b.entry(uint64(1_700_000_000_000_000-n*1_000_000+i), fmt.Sprintf("MESSAGE=%d %d", n, i))
			want = append(want, fmt.Sprintf("%d %d", n, i))
		}
		name := fmt.Sprintf("system@%s-%016x-0.journal", b.id, n*100+1)
		if n == 3 {
			name = "system.journal"
		}
		writeFile(t, filepath.Join(dir, "m", name), b.file)
	}
	if diff := cmp.Diff(want, messages(pollAll(openDir(t, dir, Options{Start: Beginning})))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestReaderDecodesOnlyWantedFieldsAndCutsLongOnes(t *testing.T) {
	dir := t.TempDir()
	for i, compression := range []byte{0, flagXZ, flagLZ4, flagZstd} {
		b := newBuilder(true, true, compression)
		b.setID(ID{byte(10 + i)})
		b.entry(1_700_000_000_000_000, "MESSAGE="+strings.Repeat("y", 5000), "_PID=7", "OTHER=1")
		writeFile(t, filepath.Join(dir, fmt.Sprintf("f%d.journal", i)), b.file)
	}
	r := openDir(t, dir, Options{Start: Beginning, Fields: []string{"MESSAGE", "_PID"}, MaxFieldBytes: 1000})
	for range 4 {
		e, ok := r.Poll()
		if !ok {
			t.Fatal("too few entries")
		}
		want := []Field{{Name: []byte("MESSAGE"), Value: []byte(strings.Repeat("y", 992)), Cut: true}, {Name: []byte("_PID"), Value: []byte("7")}}
		if diff := cmp.Diff(want, e.Fields()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	if got := r.Stats().CutFields; got != 4 {
		t.Errorf("got %d cut fields, want 4", got)
	}
}

func TestReaderLeavesOutCopiesOfTheVolatileJournal(t *testing.T) {
	root := t.TempDir()
	volatile, persistent := newBuilder(true, true, 0), newBuilder(true, true, 0)
	persistent.setID(ID{77})
	for i := range 10 {
		volatile.entry(uint64(1_700_000_000_000_000+i), fmt.Sprintf("MESSAGE=%d", i))
		persistent.entry(uint64(1_700_000_000_000_000+i), fmt.Sprintf("MESSAGE=%d", i))
	}
	persistent.entry(1_700_000_000_000_020, "MESSAGE=after")
	writeFile(t, filepath.Join(root, "run/log/journal/m/system.journal"), volatile.file)
	r, err := Open(Options{Root: root, Start: Beginning})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := len(pollAll(r)); got != 10 {
		t.Fatalf("got %d entries, want 10", got)
	}
	checkpoint := r.Checkpoint()
	writeFile(t, filepath.Join(root, "var/log/journal/m/system.journal"), persistent.file)
	os.RemoveAll(filepath.Join(root, "run"))
	waitFor(t, r, []string{"after"})
	later, err := Open(Options{Root: root, Checkpoint: checkpoint})
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	waitFor(t, later, []string{"after"})
	if got := later.Stats().Copies; got != 10 {
		t.Errorf("got %d copies, want 10", got)
	}
}
