// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenerPID returns who listens on the other end of a connection to a Unix socket: 1 where systemd does and starts the
// daemon when it is needed, 0 where the process is not visible in our PID namespace.
func listenerPID(conn net.Conn) int32 {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	var pid int32
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = cred.Pid
		}
	})
	return pid
}
