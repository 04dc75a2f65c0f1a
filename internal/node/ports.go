// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// socketState is the state of a socket as /proc/net/{tcp,udp} write it: TCP's, which UDP uses as well.
type socketState string

const (
	stateListen      socketState = "0A" // TCP_LISTEN
	stateUnconnected socketState = "07" // TCP_CLOSE
)

// maxPortsFile bounds what is read of a table of sockets: 100,000 of them.
const maxPortsFile = 16 << 20

var errTooMany = errors.New("too many sockets")

// parsePorts adds the local ports of the sockets in a state to ports, from /proc/net/{tcp,udp}{,6}. The kernel writes
// listening sockets first (tcp_get_idx, net/ipv4/tcp_ipv4.c), so that nothing is read after the last of them.
//
// See Documentation/networking/proc_net_tcp.rst.
func parsePorts(ctx context.Context, r io.Reader, state socketState, ports map[uint16]struct{}) error {
	limited := &io.LimitedReader{R: r, N: maxPortsFile}
	lines := bufio.NewScanner(limited)
	lines.Scan() // names of the columns
	for n := 1; lines.Scan(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		found, port, err := parsePort(lines.Bytes(), state)
		switch {
		case err != nil && limited.N == 0:
			return errTooMany // the line was cut off
		case err != nil:
			return err
		case found && port != 0:
			ports[port] = struct{}{}
		case !found && state == stateListen:
			return nil
		}
	}
	if limited.N == 0 {
		return errTooMany
	}
	return lines.Err()
}

// parsePort reads a line. It finds nothing if the socket is in another state.
func parsePort(line []byte, state socketState) (found bool, port uint16, err error) {
	fields := bytes.Fields(line)
	if len(fields) < 4 {
		return false, 0, fmt.Errorf("socket %.128q: too few fields", line)
	}
	if string(fields[3]) != string(state) {
		return false, 0, nil
	}
	_, hex, _ := bytes.Cut(fields[1], []byte{':'})
	n, err := strconv.ParseUint(string(hex), 16, 16)
	if err != nil {
		return false, 0, fmt.Errorf("socket %.128q: %w", line, err)
	}
	return true, uint16(n), nil
}
