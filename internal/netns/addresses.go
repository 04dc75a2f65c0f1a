// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// maxAddressFile is how much of a file is read. An address takes about 60 bytes, and so does each route of the table.
const maxAddressFile = 1 << 20

var errTooLong = fmt.Errorf("longer than %d bytes", maxAddressFile)

// Addresses returns the addresses that the network namespace of a process has itself: IPv4 and IPv6, those of loopback
// and link-local ones included, without zone, sorted, each once. It needs no privileges.
//
// The error matches fs.ErrNotExist when the process is gone. When a file is longer than 1 MiB, as that of a host with many
// thousand routes is, the addresses found until there are returned with the error.
func Addresses(procRoot string, pid int) ([]netip.Addr, error) {
	dir := filepath.Join(procRoot, strconv.Itoa(pid), "net")
	var addrs []netip.Addr
	err := readAddresses(filepath.Join(dir, "fib_trie"), func(r io.Reader) error { return parseFibTrie(r, &addrs) })
	if err == nil || errors.Is(err, errTooLong) {
		err6 := readAddresses(filepath.Join(dir, "if_inet6"), func(r io.Reader) error { return parseIfInet6(r, &addrs) })
		if !errors.Is(err6, fs.ErrNotExist) { // as it is where there is no IPv6
			err = errors.Join(err, err6)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), err
}

// readAddresses gives the first maxAddressFile bytes of a file to parse.
func readAddresses(path string, parse func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return gone(err)
	}
	defer f.Close()
	limited := &io.LimitedReader{R: f, N: maxAddressFile}
	if err := parse(limited); err != nil {
		return fmt.Errorf("%s: %w", path, gone(err))
	}
	if limited.N == 0 {
		return fmt.Errorf("%s: %w", path, errTooLong)
	}
	return nil
}

// gone makes ESRCH, which files of a process that ends just now give, match fs.ErrNotExist.
func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w (%w)", err, fs.ErrNotExist)
	}
	return err
}

// parseFibTrie adds the local addresses of /proc/net/fib_trie to addrs.
//
// A leaf is "|-- 10.0.0.1", the routes of the leaf follow as "/32 host LOCAL", each on a line of its own with spaces in
// front; see fib_trie_seq_show of net/ipv4/fib_trie.c. Local routes of whole prefixes are no addresses.
func parseFibTrie(r io.Reader, addrs *[]netip.Addr) error {
	var leaf netip.Addr
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if text, ok := bytes.CutPrefix(line, []byte("|-- ")); ok {
			var err error
			if leaf, err = netip.ParseAddr(string(text)); err != nil || !leaf.Is4() {
				leaf = netip.Addr{} // the line that the limit has cut off, or nothing we know
			}
			continue
		}
		if leaf.IsValid() && bytes.HasPrefix(line, []byte("/32 host LOCAL")) {
			*addrs = append(*addrs, leaf)
			leaf = netip.Addr{}
		}
	}
	return lines.Err()
}

// parseIfInet6 adds the addresses of /proc/net/if_inet6 to addrs: 32 hexadecimal digits, then interface, prefix, scope,
// flags and name. Only unicast addresses are there; see if6_seq_show of net/ipv6/addrconf.c.
func parseIfInet6(r io.Reader, addrs *[]netip.Addr) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		text, _, ok := bytes.Cut(lines.Bytes(), []byte(" "))
		var raw [16]byte
		if !ok || len(text) != hex.EncodedLen(len(raw)) {
			continue
		}
		if _, err := hex.Decode(raw[:], text); err != nil {
			continue
		}
		*addrs = append(*addrs, netip.AddrFrom16(raw).Unmap())
	}
	return lines.Err()
}
