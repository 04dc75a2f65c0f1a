// SPDX-License-Identifier: Apache-2.0

package apptype

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestParseCmdline(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{name: "kernel thread"},
		{name: "only padding", in: "\x00\x00\x00"},
		{name: "only blanks", in: "   \x00"},
		{name: "one argument", in: "redis-server\x00", want: []string{"redis-server"}},
		{name: "arguments", in: "tail\x00-f\x00/var/log/a b\x00", want: []string{"tail", "-f", "/var/log/a b"}},
		{name: "empty ones inside", in: "erl\x00-pa\x00\x00-noshell\x00", want: []string{"erl", "-pa", "", "-noshell"}},
		{name: "empty first", in: "\x00-h\x00", want: []string{"", "-h"}},
		{name: "no NUL at the end", in: "etcd\x00--data-dir=/var/lib/et", want: []string{"etcd", "--data-dir=/var/lib/et"}},
		{name: "title padded with blanks", in: "postgres: checkpointer      ", want: []string{"postgres:", "checkpointer"}},
		{
			name: "title padded with NUL",
			in:   "nginx: master process /usr/sbin/nginx -g daemon off;\x00\x00\x00\x00",
			want: []string{"nginx:", "master", "process", "/usr/sbin/nginx", "-g", "daemon", "off;"},
		},
		{
			name: "title and the rest of the arguments",
			in:   "gunicorn: worker [a]\x00\x00\x00-b\x00",
			want: []string{"gunicorn: worker [a]", "", "", "-b"},
		},
		{name: "not UTF-8", in: "caf\xe9\x00\xff\xfe\x00", want: []string{"caf\uFFFD", "\uFFFD"}},
		{name: "a letter cut off", in: "a\x00\xc3", want: []string{"a", "\uFFFD"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, ParseCmdline([]byte(tt.in))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseCmdlineIsBounded(t *testing.T) {
	for _, in := range []string{strings.Repeat("a\x00", 1<<20), strings.Repeat("a ", 1<<20), strings.Repeat("\x00", 1<<20) + "a"} {
		if got := ParseCmdline([]byte(in)); len(got) != maxArgs {
			t.Errorf("%q…: %d arguments, want %d", in[:4], len(got), maxArgs)
		}
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add([]byte("postgres: checkpointer   "))
	f.Add([]byte("a\x00\x00b\xff\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		args := ParseCmdline(b)
		if args != nil && len(args) == 0 || len(args) > maxArgs {
			t.Errorf("%d arguments", len(args))
		}
		for _, arg := range args {
			if !utf8.ValidString(arg) || strings.Contains(arg, "\x00") {
				t.Errorf("argument %q", arg)
			}
		}
	})
}
