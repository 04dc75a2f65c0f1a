// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// addressMessage is an answer to RTM_GETADDR about interface 7.
func addressMessage(flags byte, attrs ...[]byte) []byte {
	b := []byte{unix.AF_INET6, 64, flags, 0}
	b = binary.NativeEndian.AppendUint32(b, 7)
	return append(b, slices.Concat(attrs...)...)
}

func attribute(typ uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return append(append(b, value...), make([]byte, (4-len(value)%4)%4)...)
}

func addrAttribute(typ uint16, addr string) []byte {
	return attribute(typ, netip.MustParseAddr(addr).AsSlice())
}

func TestParseAddress(t *testing.T) {
	flagsAttribute := func(flags uint32) []byte {
		return attribute(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags))
	}
	for _, tt := range []struct {
		name    string
		in      []byte
		want    string // "" when it is not to be given
		wantErr bool
	}{
		{name: "public IPv6", in: addressMessage(0x80, addrAttribute(unix.IFA_ADDRESS, "2001:db8::7"), flagsAttribute(0x80)), want: "2001:db8::7"},
		{name: "IPv4", in: addressMessage(0x80, addrAttribute(unix.IFA_ADDRESS, "192.0.2.7"), addrAttribute(unix.IFA_LOCAL, "192.0.2.7")), want: "192.0.2.7"},
		{name: "point to point", in: addressMessage(0, addrAttribute(unix.IFA_LOCAL, "198.18.0.1"), addrAttribute(unix.IFA_ADDRESS, "198.18.0.2")), want: "198.18.0.1"},
		{name: "tentative", in: addressMessage(unix.IFA_F_TENTATIVE, addrAttribute(unix.IFA_ADDRESS, "2001:db8::7"))},
		{name: "duplicate", in: addressMessage(0, addrAttribute(unix.IFA_ADDRESS, "2001:db8::7"), flagsAttribute(unix.IFA_F_DADFAILED))},
		{name: "link-local", in: addressMessage(0, addrAttribute(unix.IFA_ADDRESS, "fe80::1"))},
		{name: "odd length", in: addressMessage(0, attribute(unix.IFA_ADDRESS, []byte{1, 2, 3, 4, 5}))},
		{name: "no attributes", in: addressMessage(0)},
		{name: "flags of a byte", in: addressMessage(0, attribute(unix.IFA_FLAGS, []byte{1})), wantErr: true},
		{name: "attribute cut off", in: addressMessage(0, addrAttribute(unix.IFA_ADDRESS, "fe80::1")[:12]), wantErr: true},
		{name: "message cut off", in: addressMessage(0)[:7], wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			index, got, err := parseAddress(tt.in)
			if (err != nil) != tt.wantErr {
				t.Fatalf("got error %v, want one: %v", err, tt.wantErr)
			}
			if err == nil && index != 7 {
				t.Errorf("got interface %d, want 7", index)
			}
			want, _ := netip.ParseAddr(tt.want)
			if got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestParseListener(t *testing.T) {
	for _, tt := range []struct {
		name    string
		in      []byte
		want    uint16
		wantErr bool
	}{
		{name: "listening", in: []byte{unix.AF_INET, 10, 0, 0, 0x1f, 0x90, 0, 0}, want: 8080},
		{name: "connected", in: []byte{unix.AF_INET, 1, 0, 0, 0x1f, 0x90, 0, 0}, wantErr: true},
		{name: "cut off", in: []byte{unix.AF_INET, 10, 0, 0, 0x1f}, wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseListener(tt.in)
			if (err != nil) != tt.wantErr || got != tt.want {
				t.Errorf("got %d, %v, want %d, error: %v", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add(addressMessage(0x80, addrAttribute(unix.IFA_ADDRESS, "2001:db8::7")))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, addr, err := parseAddress(b)
		if err != nil && addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
			t.Errorf("%v, %v", addr, err)
		}
	})
}

// A question that was given up leaves a socket that can be used again.
func TestDumpEndsWithItsContext(t *testing.T) {
	s := netlinkSocket{ns: &namespace{ours: true}, protocol: unix.NETLINK_ROUTE}
	defer s.close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if _, err := addresses(ended, &s); !errors.Is(err, context.Canceled) {
			t.Fatalf("got error %v, want %v", err, context.Canceled)
		}
		if found, err := addresses(t.Context(), &s); err != nil || len(found) == 0 {
			t.Fatalf("got %v, %v", found, err)
		}
	}
}
