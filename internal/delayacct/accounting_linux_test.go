// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func fakeProc(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

func TestAccounting(t *testing.T) {
	const release = "sys/kernel/osrelease"
	counts := func(yes bool, err error) func() (bool, error) {
		return func() (bool, error) { return yes, err }
	}
	for _, tt := range []struct {
		name   string
		files  map[string]string
		counts func() (bool, error)
		want   State
		fails  bool
	}{
		{name: "off", files: map[string]string{switchFile: "0\n"}, want: Off},
		{name: "on", files: map[string]string{switchFile: "1\n"}, want: On},
		{name: "neither", files: map[string]string{switchFile: "2\n"}, fails: true},
		{name: "no /proc", fails: true},
		{name: "no version", files: map[string]string{release: "linux"}, fails: true},
		{name: "5.14 without", files: map[string]string{release: "5.14.0-427.el9.x86_64\n"}, want: Missing},
		{name: "6.1 without", files: map[string]string{release: "6.1.0\n"}, want: Missing},
		{name: "5.10", files: map[string]string{release: "5.10.0-30\n"}, counts: counts(true, nil), want: On},
		{name: "5.10, counts nothing", files: map[string]string{release: "5.10.0-30\n"}, counts: counts(false, nil), want: Off},
		{
			name: "5.10, may not ask", files: map[string]string{release: "5.10.0-30\n", "cmdline": "quiet\n"},
			counts: counts(false, ErrNotPermitted), want: Unknown,
		},
		{
			name:  "5.10, booted without",
			files: map[string]string{release: "5.10.0-30\n", "cmdline": "root=/dev/vda nodelayacct quiet\n"}, want: Off,
		},
		{
			name: "4.18, built with",
			files: map[string]string{
				release: "4.18.0\n", "cmdline": "quiet\n", "config.gz": gzipped("CONFIG_A=y\nCONFIG_TASK_DELAY_ACCT=y\n"),
			},
			want: On,
		},
		{
			name: "4.18, built without",
			files: map[string]string{
				release: "4.18.0\n", "cmdline": "quiet\n", "config.gz": gzipped("# CONFIG_TASK_DELAY_ACCT is not set\n"),
			},
			want: Missing,
		},
		{
			name: "4.18, configuration unreadable", files: map[string]string{release: "4.18.0\n", "config.gz": "no gzip"},
			counts: counts(true, nil), want: On,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ask := tt.counts
			if ask == nil {
				ask = func() (bool, error) { t.Error("asked the kernel"); return false, nil }
			}
			got, err := accounting(fakeProc(t, tt.files), ask)
			if got != tt.want || (err != nil) != tt.fails {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestEnable(t *testing.T) {
	root := fakeProc(t, map[string]string{switchFile: "0\n"})
	if err := Enable(root); err != nil {
		t.Fatal(err)
	}
	if state, err := Accounting(root); state != On || err != nil {
		t.Errorf("%v, %v", state, err)
	}
	empty := t.TempDir()
	if err := Enable(empty); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a switch: %v", err)
	}
	if entries, _ := os.ReadDir(empty); len(entries) != 0 {
		t.Error("made a switch")
	}
}
