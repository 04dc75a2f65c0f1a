// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"net"
	"os"
	"strings"
	"time"
)

// journal speaks journald's native protocol, see systemd.io/JOURNAL_NATIVE_PROTOCOL. It runs until it is killed: journald
// asks /proc for the cgroup of a sender that may be gone.
func journal(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: load journal SOCKET FILE")
	}
	entries, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	conn, err := net.Dial("unixgram", args[0])
	if err != nil {
		return err
	}
	for entry := range strings.SplitSeq(string(entries), "\n\n") {
		if _, err := conn.Write([]byte(strings.TrimSpace(entry) + "\n")); err != nil {
			return err
		}
	}
	for {
		time.Sleep(time.Hour)
	}
}
