// SPDX-License-Identifier: Apache-2.0

// Package netns asks a network namespace what it knows: its addresses, its translated connections, its routes, and how far
// away a host is.
//
// Addresses reads files that anybody may read. The rest goes through a Namespace, which only Linux has: a socket is made
// by a thread that is inside the namespace for that moment, and belongs to the namespace from then on. No other thread
// is ever there, and the main thread never, because /proc/self and /proc/net of the whole process are the main thread's.
//
// What it takes: CAP_SYS_PTRACE to open the namespace of somebody else's process, CAP_SYS_ADMIN to enter one that is not
// our own, then CAP_NET_ADMIN for Translations and CAP_NET_RAW for Echo. What is refused matches fs.ErrPermission.
package netns

import "net/netip"

// MaxEchoes is how many addresses one call of Echo takes.
const MaxEchoes = 256

// Translation is one TCP connection whose destination a rule of the namespace has changed.
type Translation struct {
	Source      netip.AddrPort // who connects
	Destination netip.AddrPort // as dialled
	Actual      netip.AddrPort // who answers
}
