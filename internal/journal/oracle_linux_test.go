// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const journalRemote = "/lib/systemd/systemd-journal-remote"

// needTools skips the test when a tool is missing, which fails it under EBPFCONTAINER_REQUIRE_ROOT_TESTS=1.
func needTools(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		_, err := exec.LookPath(tool)
		switch {
		case err == nil:
		case os.Getenv("EBPFCONTAINER_REQUIRE_ROOT_TESTS") == "1":
			t.Fatalf("required by EBPFCONTAINER_REQUIRE_ROOT_TESTS: %v", err)
		default:
			t.Skip(err)
		}
	}
}

// journalctl returns what it says of files, without the field _BOOT_ID, which it takes from the head of the entry.
func journalctl(t testing.TB, args ...string) []record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "journalctl", append([]string{"-o", "export", "--no-pager", "--quiet"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("journalctl: %v\n%s", err, stderr.Bytes())
	}
	all, err := parseExport(bufio.NewReader(bytes.NewReader(out)))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// parseExport reads the export format: see systemd.io/JOURNAL_EXPORT_FORMATS.
func parseExport(in *bufio.Reader) ([]record, error) {
	var all []record
	rec := record{Fields: map[string][]string{}}
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		line = line[:len(line)-1]
		if line == "" {
			all = append(all, rec)
			rec = record{Fields: map[string][]string{}}
			continue
		}
		name, value, text := strings.Cut(line, "=")
		if !text {
			var size uint64
			if err := binary.Read(in, binary.LittleEndian, &size); err != nil {
				return nil, err
			}
			b := make([]byte, size+1)
			if _, err := io.ReadFull(in, b); err != nil {
				return nil, err
			}
			value = string(b[:size])
		}
		switch {
		case name == "__CURSOR":
			rec.Cursor = value
		case name == "_BOOT_ID" || strings.HasPrefix(name, "__"):
		default:
			rec.Fields[name] = append(rec.Fields[name], value)
		}
	}
}

// export makes a stream of entries with text, binary and long fields, of several boots.
func export(w io.Writer, n int) {
	random := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		fmt.Fprintf(w, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%032x\n", 1_700_000_000_000_000+i*100, i%(n/3)*100+1, i/(n/3)+1)
		fmt.Fprintf(w, "_MACHINE_ID=%032x\n_HOSTNAME=host\n_SYSTEMD_UNIT=u%d.service\n_SYSTEMD_CGROUP=/system.slice/u%d.service\n_PID=%d\nPRIORITY=%d\n",
			17, i%50, i%50, i%300, i%8)
		switch {
		case i%100 == 0:
			text := []byte(randomText(random, 600+random.IntN(6000)))
			w.Write(append(binary.LittleEndian.AppendUint64([]byte("MESSAGE\n"), uint64(len(text))), append(text, '\n')...))
		case i%100 == 1:
			text := make([]byte, random.IntN(3000))
			for j := range text {
				text[j] = byte(random.IntN(256))
			}
			w.Write(append(binary.LittleEndian.AppendUint64([]byte("MESSAGE\n"), uint64(len(text))), append(text, '\n')...))
		default:
			fmt.Fprintf(w, "MESSAGE=request %d took %d ms\n", i, random.IntN(1000))
		}
		if i%1000 == 2 {
			fmt.Fprintf(w, "COREDUMP=%s\nTWICE=1\nTWICE=2\n", strings.Repeat("core", 30_000))
		}
		fmt.Fprintln(w)
	}
}

// remoteFiles makes journal files of n entries by systemd-journal-remote and returns their directory.
func remoteFiles(t testing.TB, n int, env ...string) string {
	t.Helper()
	needTools(t, journalRemote, "journalctl")
	in, err := os.Create(filepath.Join(t.TempDir(), "in.export"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	buffered := bufio.NewWriter(in)
	export(buffered, n)
	buffered.Flush()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, journalRemote, "-o", filepath.Join(dir, "remote.journal"), in.Name())
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("systemd-journal-remote: %v\n%s", err, out)
	}
	return dir
}

func withoutBoot(all []record) []record {
	for _, rec := range all {
		delete(rec.Fields, "_BOOT_ID")
	}
	return all
}

func compareRecords(t *testing.T, want, got []record) {
	t.Helper()
	if len(want) == 0 || len(want) != len(got) {
		t.Errorf("got %d entries, want %d", len(got), len(want))
	}
	for i := range min(len(want), len(got)) {
		if diff := cmp.Diff(want[i], got[i]); diff != "" {
			t.Fatalf("entry %d: -want +got:\n%s", i, diff)
		}
	}
}

func TestReaderAgreesWithJournalctl(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries int
		env     []string
	}{
		{"compact", 100_000, []string{"SYSTEMD_JOURNAL_COMPACT=1"}},
		{"regular", 20_000, []string{"SYSTEMD_JOURNAL_COMPACT=0"}},
		{"regular, unkeyed", 20_000, []string{"SYSTEMD_JOURNAL_COMPACT=0", "SYSTEMD_JOURNAL_KEYED_HASH=0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := remoteFiles(t, tt.entries, tt.env...)
			r := openDir(t, dir, Options{Start: Beginning})
			got := withoutBoot(pollAll(r))
			if len(got) != tt.entries {
				t.Errorf("got %d entries, want %d", len(got), tt.entries)
			}
			compareRecords(t, journalctl(t, "-D", dir), got)
			if diff := cmp.Diff(Stats{Entries: uint64(tt.entries), Files: 1}, r.Stats()); diff != "" {
				t.Errorf("stats: -want +got:\n%s", diff)
			}
		})
	}
}

// What the builder makes is what journalctl takes for a journal, so that the other tests are about real files.
func TestBuilderAgreesWithJournalctl(t *testing.T) {
	needTools(t, "journalctl")
	eachShape(t, func(t *testing.T, b *builder) {
		want := b.fill(200)
		path := filepath.Join(t.TempDir(), "system.journal")
		writeFile(t, path, b.file)
		compareRecords(t, want, journalctl(t, "--file", path))
	})
}
