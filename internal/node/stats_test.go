// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"
	"unicode/utf8"
)

func TestValidName(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"eth0", "eth0"},
		{"", ""},
		{"größe", "größe"},
		{"a\xffb\xc3", `a\xffb\xc3`},
		{"\xed\xa0\x80", `\xed\xa0\x80`}, // half of a surrogate pair
		{"a\ufffdb", "a\ufffdb"},
	} {
		got := validName(tt.in)
		if got != tt.want || !utf8.ValidString(got) {
			t.Errorf("validName(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestArrayDegraded(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   Array
		want bool
	}{
		{"complete", Array{State: "active", Active: 2, Total: 2}, false},
		{"complete with a failed spare", Array{State: "active", Active: 2, Total: 2, Failed: 1}, false},
		{"one disk down", Array{State: "active", Active: 1, Total: 2, Down: 1}, true},
		{"recovering", Array{State: "recovering", Active: 2, Total: 3, Down: 1}, true},
		{"not assembled", Array{State: "inactive", Spare: 2}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.in.Degraded(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
