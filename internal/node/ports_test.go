// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const portsHead = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestParsePorts(t *testing.T) {
	const (
		listen  = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
		listen6 = "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0 0 0 0\n"
		open    = "   2: 0A00000A:0016 0B00000A:D431 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
		udp     = "  10: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0\n"
		udpConn = "  11: 0A00000A:C35A 08080808:0035 01 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0\n"
	)
	for _, tt := range []struct {
		name, in string
		state    socketState
		want     []uint16
		wantErr  bool
	}{
		{name: "empty", state: stateListen},
		{name: "no sockets", in: portsHead, state: stateListen},
		{name: "listeners, one port twice", in: portsHead + listen + listen6 + listen, state: stateListen, want: []uint16{22, 80}},
		{name: "nothing is read after the last listener", in: portsHead + listen + open + "garbage", state: stateListen, want: []uint16{22}},
		{name: "UDP in any order", in: portsHead + udpConn + udp + udpConn, state: stateUnconnected, want: []uint16{68}},
		{name: "not bound", in: portsHead + "  1: 00000000:0000 00000000:0000 07\n", state: stateUnconnected},
		{name: "cut off", in: portsHead + listen + "   1: 000000", state: stateListen, want: []uint16{22}, wantErr: true},
		{name: "no port", in: portsHead + "  1: 00000000 00000000:0000 0A\n", state: stateListen, wantErr: true},
		{name: "port too large", in: portsHead + "  1: 00000000:10000 00000000:0000 0A\n", state: stateListen, wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ports := map[uint16]struct{}{}
			err := parsePorts(t.Context(), strings.NewReader(tt.in), tt.state, ports)
			if (err != nil) != tt.wantErr {
				t.Errorf("got error %v, want one: %v", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, slices.Sorted(maps.Keys(ports))); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
		})
	}
}

// endless repeats a line for ever.
type endless struct {
	line string
	at   int
}

func (e *endless) Read(b []byte) (n int, err error) {
	for n < len(b) {
		copied := copy(b[n:], e.line[e.at:])
		n, e.at = n+copied, (e.at+copied)%len(e.line)
	}
	return n, nil
}

func TestParsePortsIsBounded(t *testing.T) {
	const line = "  10: 00000000:0044 00000000:0000 07 00000000:00000000\n"
	table := func() io.Reader { return io.MultiReader(strings.NewReader(portsHead), &endless{line: line}) }
	ports := map[uint16]struct{}{}
	if err := parsePorts(t.Context(), table(), stateUnconnected, ports); !errors.Is(err, errTooMany) {
		t.Errorf("got error %v, want %v", err, errTooMany)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := parsePorts(ended, table(), stateUnconnected, ports); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}

func FuzzParsePorts(f *testing.F) {
	f.Add(portsHead + "   0: 00000000:0016 00000000:0000 0A 0\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, state := range []socketState{stateListen, stateUnconnected} {
			ports := map[uint16]struct{}{}
			_ = parsePorts(t.Context(), strings.NewReader(s), state, ports)
			if _, zero := ports[0]; zero || len(ports) > strings.Count(s, "\n")+1 {
				t.Errorf("ports %v of %q", ports, s)
			}
		}
	})
}
