// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// dockerProxyName is the proxy attribute of ports that Docker publishes.
	dockerProxyName = "dockerd"
	// maxProcFile is how much is read of a file below /proc/<pid>.
	maxProcFile = 64 << 10
)

// dockerProxy is a process by which Docker holds a port of the host for a container.
type dockerProxy struct {
	host netip.AddrPort // where it is published
	to   netip.AddrPort // the container's address
}

// proxies remembers which listening processes hold ports for others.
type proxies struct {
	procRoot string
	known    map[int]*knownProcess // by process id
}

type knownProcess struct {
	proxy    *dockerProxy   // nil for another program
	isDocker bool           // dockerd: it listens for the proxies that it starts
	children []*dockerProxy // of dockerd
	seen     bool           // in this pass
	looked   bool           // for children, in this pass
}

func (p *proxies) beginPass() {
	for _, k := range p.known {
		k.seen, k.looked = false, false
	}
}

// endPass forgets processes that do not listen any more: their ids may come again.
func (p *proxies) endPass() {
	for pid, k := range p.known {
		if !k.seen {
			delete(p.known, pid)
		}
	}
}

// find tells for whom a process listens on addr, nil for itself.
func (p *proxies) find(pid int, addr netip.AddrPort) *dockerProxy {
	k := p.known[pid]
	if k == nil {
		cmdline := p.read(pid, "cmdline")
		k = &knownProcess{proxy: parseDockerProxy(cmdline), isDocker: programOf(cmdline) == "dockerd"}
		p.known[pid] = k
	}
	k.seen = true
	if !k.isDocker {
		return k.proxy
	}
	if child := k.childAt(addr); child != nil || k.looked {
		return child
	}
	k.looked, k.children = true, p.childrenOf(pid)
	return k.childAt(addr)
}

func (k *knownProcess) childAt(addr netip.AddrPort) *dockerProxy {
	for _, c := range k.children {
		if c.host == addr {
			return c
		}
	}
	return nil
}

// childrenOf lists the proxies that dockerd has started and given a listening socket, as it does since Docker 28.
func (p *proxies) childrenOf(pid int) []*dockerProxy {
	threads, err := os.ReadDir(filepath.Join(p.procRoot, strconv.Itoa(pid), "task"))
	if err != nil {
		return nil
	}
	var children []*dockerProxy
	for _, thread := range threads {
		for _, word := range strings.Fields(string(p.read(pid, filepath.Join("task", thread.Name(), "children")))) {
			child, err := strconv.Atoi(word)
			if err != nil {
				continue
			}
			if proxy := parseDockerProxy(p.read(child, "cmdline")); proxy != nil {
				children = append(children, proxy)
			}
		}
	}
	return children
}

// read gives the begin of a file of a process, nothing if it cannot be read.
func (p *proxies) read(pid int, name string) []byte {
	f, err := os.Open(filepath.Join(p.procRoot, strconv.Itoa(pid), name))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	if err != nil {
		return nil
	}
	return b
}

// programOf gives the name of the program of a command line, words ended by NUL.
func programOf(cmdline []byte) string {
	word, _, _ := bytes.Cut(cmdline, []byte{0})
	return filepath.Base(string(word))
}

// parseDockerProxy reads the command line of Docker's userland proxy, words ended by NUL:
//
//	docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8081 -container-ip 172.17.0.2 -container-port 8080 -use-listen-fd
//
// It returns nil for any other. See cmd/docker-proxy in the repository moby/moby.
func parseDockerProxy(cmdline []byte) *dockerProxy {
	if programOf(cmdline) != "docker-proxy" {
		return nil
	}
	words := bytes.Split(cmdline, []byte{0})
	flags := map[string]string{}
	for i := 1; i+1 < len(words); i++ {
		if bytes.HasPrefix(words[i], []byte("-")) {
			flags[string(bytes.TrimLeft(words[i], "-"))] = string(words[i+1])
		}
	}
	to, ok := addrPortOf(flags["container-ip"], flags["container-port"])
	if !ok || flags["proto"] != "tcp" {
		return nil
	}
	host, _ := addrPortOf(flags["host-ip"], flags["host-port"])
	return &dockerProxy{host: host, to: to}
}

func addrPortOf(ip, port string) (netip.AddrPort, bool) {
	addr, err := netip.ParseAddr(ip)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n == 0 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr, uint16(n)), true
}
