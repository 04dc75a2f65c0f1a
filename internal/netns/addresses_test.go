// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const fibTrie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.0
           /24 link UNICAST
        |-- 10.0.0.7
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.0.0.7
        /32 host LOCAL
     |-- 127.0.0.0
        /8 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.9
        /32 universe UNICAST
        /32 host LOCAL
`

const ifInet6 = `00000000000000000000000000000001 01 80 10 80       lo
fe8000000000000000163efffe000001 02 40 20 80     eth0
20010db8000000000000000000000007 02 40 00 80 a name
`

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

var cmpAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestParseFibTrie(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []netip.Addr
	}{
		{name: "empty"},
		{name: "whole", in: fibTrie, want: addrs("10.0.0.7", "10.0.0.7", "127.0.0.1", "192.0.2.9")},
		{name: "cut off in an address", in: "|-- 10.0.0.1\n/32 host LOCAL\n|-- 10.0.", want: addrs("10.0.0.1")},
		{name: "route without a leaf", in: "/32 host LOCAL\n"},
		{name: "leaf of another family", in: "|-- ::1\n/32 host LOCAL\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []netip.Addr
			if err := parseFibTrie(strings.NewReader(tt.in), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpAddrs); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseIfInet6(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []netip.Addr
	}{
		{name: "empty"},
		{name: "whole", in: ifInet6, want: addrs("::1", "fe80::16:3eff:fe00:1", "2001:db8::7")},
		{name: "short", in: "0001 01 80 10 80 lo\n"},
		{name: "cut off", in: "00000000000000000000000000000001"},
		{name: "not hexadecimal", in: "0000000000000000000000000000000g 01 80 10 80 lo\n"},
		{name: "mapped", in: "00000000000000000000ffff0a000001 01 80 10 80 lo\n", want: addrs("10.0.0.1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []netip.Addr
			if err := parseIfInet6(strings.NewReader(tt.in), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpAddrs); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// procWith makes a tree with the files of process 7.
func procWith(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "7", "net")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAddresses(t *testing.T) {
	long := strings.Repeat("     |-- 10.0.0.0\n        /24 link UNICAST\n", maxAddressFile/32)
	for _, tt := range []struct {
		name    string
		files   map[string]string
		want    []netip.Addr
		wantErr error
	}{
		{
			name:  "both families, sorted, each once",
			files: map[string]string{"fib_trie": fibTrie, "if_inet6": ifInet6},
			want:  addrs("10.0.0.7", "127.0.0.1", "192.0.2.9", "::1", "2001:db8::7", "fe80::16:3eff:fe00:1"),
		},
		{name: "without IPv6", files: map[string]string{"fib_trie": fibTrie}, want: addrs("10.0.0.7", "127.0.0.1", "192.0.2.9")},
		{name: "no interface up", files: map[string]string{"fib_trie": "", "if_inet6": ""}},
		{name: "gone", wantErr: fs.ErrNotExist},
		{
			name:    "too many routes",
			files:   map[string]string{"fib_trie": fibTrie + long, "if_inet6": ifInet6[:strings.Index(ifInet6, "\n")+1]},
			want:    addrs("10.0.0.7", "127.0.0.1", "192.0.2.9", "::1"),
			wantErr: errTooLong,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Addresses(procWith(t, tt.files), 7)
			if !errors.Is(err, tt.wantErr) {
				t.Errorf("error %v, want %v", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got, cmpAddrs); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseFibTrie(f *testing.F) {
	f.Add([]byte(fibTrie))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []netip.Addr
		_ = parseFibTrie(bytes.NewReader(b), &got)
		for _, addr := range got {
			if !addr.Is4() {
				t.Errorf("%s is not an IPv4 address", addr)
			}
		}
	})
}

func FuzzParseIfInet6(f *testing.F) {
	f.Add([]byte(ifInet6))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []netip.Addr
		_ = parseIfInet6(bytes.NewReader(b), &got)
		for _, addr := range got {
			if !addr.IsValid() || addr.Is4In6() {
				t.Errorf("%s is not a plain address", addr)
			}
		}
	})
}
