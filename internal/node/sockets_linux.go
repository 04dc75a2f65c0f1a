// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/procfs"
)

// readProtocols reads the counters of the host's network namespace. Those of TCP are of both families; UDP has some for each.
func (r *Reader) readProtocols(_ context.Context, st *Stats) error {
	p, err := r.netProcess()
	if err != nil {
		return err
	}
	var errs []error
	snmp, err := p.Snmp()
	if err == nil {
		st.TCP.Retransmits = counterOf(snmp.RetransSegs)
		st.TCP.ResetsSent = counterOf(snmp.OutRsts)
		st.TCP.EstablishedResets = counterOf(snmp.EstabResets)
		six, err := p.Snmp6()
		if err == nil || errors.Is(err, fs.ErrNotExist) { // without IPv6 there is no such file
			st.UDP = newUDP(&snmp, &six)
		} else {
			errs = append(errs, err)
		}
	} else {
		errs = append(errs, err)
	}
	netstat, err := p.Netstat()
	if err == nil {
		st.TCP.ListenDrops = counterOf(netstat.ListenDrops)
		st.TCP.ListenOverflows = counterOf(netstat.ListenOverflows)
	} else {
		errs = append(errs, err)
	}
	return join(append(errs, r.hostNet.note)...)
}

// netProcess is a process of the host's network namespace.
func (r *Reader) netProcess() (procfs.Proc, error) {
	proc, err := procfs.NewFS(filepath.Dir(r.hostNet.proc))
	if err != nil {
		return procfs.Proc{}, err
	}
	if filepath.Base(r.hostNet.proc) == "self" {
		return proc.Self()
	}
	return proc.Proc(1)
}

func newUDP(four *procfs.ProcSnmp, six *procfs.ProcSnmp6) UDP {
	sum := func(four, six *float64) Opt[uint64] {
		a, b := counterOf(four), counterOf(six)
		return Opt[uint64]{V: a.V + b.V, OK: a.OK}
	}
	return UDP{
		ReceiveErrors:       sum(four.Udp.InErrors, six.Udp6.InErrors),
		ReceiveBufferErrors: sum(four.Udp.RcvbufErrors, six.Udp6.RcvbufErrors),
		ChecksumErrors:      sum(four.Udp.InCsumErrors, six.Udp6.InCsumErrors),
		SendBufferErrors:    sum(four.Udp.SndbufErrors, six.Udp6.SndbufErrors),
		NoPort:              sum(four.Udp.NoPorts, six.Udp6.NoPorts),
	}
}

func counterOf(f *float64) Opt[uint64] {
	if f == nil || !(*f >= 0 && *f < math.MaxUint64) {
		return Opt[uint64]{}
	}
	return Some(uint64(*f))
}

func (r *Reader) readListening(ctx context.Context, st *Stats) error {
	tcp, tcpErr := r.listeningTCP(ctx)
	if tcpErr == nil {
		st.Listening.TCP = Some(tcp)
	}
	udp := map[uint16]struct{}{}
	udpErr := r.walkPorts(ctx, "udp", stateUnconnected, udp)
	if udpErr == nil {
		st.Listening.UDP = Some(len(udp))
	}
	return join(r.hostNet.note, tcpErr, udpErr)
}

// portWalk is what the last walk through the sockets of TCP found.
type portWalk struct {
	at    time.Time
	count int
}

// listeningTCP asks sock_diag, which looks at listening sockets only. Where that might load a kernel module, or the
// namespace cannot be entered, there is /proc/net/tcp, for which the kernel also walks its table of connections, to the
// first that there is: on an idle host all of it, milliseconds each time. Once a minute is enough then.
func (r *Reader) listeningTCP(ctx context.Context) (int, error) {
	ports := map[uint16]struct{}{}
	if r.hasTCPDiag() && listeners(ctx, &r.diag, ports) == nil {
		return len(ports), nil
	}
	if !r.walk.at.IsZero() && time.Since(r.walk.at) < time.Minute {
		return r.walk.count, nil
	}
	clear(ports)
	if err := r.walkPorts(ctx, "tcp", stateListen, ports); err != nil {
		return 0, err
	}
	r.walk = portWalk{at: time.Now(), count: len(ports)}
	return len(ports), nil
}

// hasTCPDiag reports whether sock_diag can be asked without loading the module tcp_diag: it is there, or there is no such
// thing as a module.
func (r *Reader) hasTCPDiag() bool {
	_, loadedErr := os.Stat(filepath.Join(r.root, "sys/module/tcp_diag"))
	_, modulesErr := os.Stat(filepath.Join(r.root, "proc/modules"))
	return loadedErr == nil || errors.Is(modulesErr, fs.ErrNotExist)
}

// walkPorts adds the ports of IPv4 and, where there is any, IPv6.
func (r *Reader) walkPorts(ctx context.Context, transport string, state socketState, ports map[uint16]struct{}) error {
	for _, name := range []string{transport, transport + "6"} {
		f, err := os.Open(filepath.Join(r.hostNet.proc, "net", name))
		if errors.Is(err, fs.ErrNotExist) && name != transport {
			continue
		}
		if err != nil {
			return err
		}
		err = parsePorts(ctx, f, state, ports)
		f.Close()
		if err != nil {
			return fmt.Errorf("net/%s: %w", name, err)
		}
	}
	return nil
}

func (r *Reader) readConntrack(_ context.Context, st *Stats) error {
	const dir = "proc/sys/net/netfilter"
	limit, err := readUint(r.root, dir, "nf_conntrack_max") // of the first namespace, which bounds all others
	if errors.Is(err, fs.ErrNotExist) {
		return r.hostNet.note // nothing tracks connections
	}
	var entries uint64
	if err == nil {
		entries, err = r.conntrackEntries(dir)
	}
	if err == nil {
		st.Conntrack = Conntrack{Entries: Some(entries), Limit: Some(limit)}
	}
	return join(r.hostNet.note, err)
}

// conntrackEntries reads the sysctl, which is of the namespace of who reads it, when that is the right one. Otherwise
// there is the older statistics file of the process, with CONFIG_NF_CONNTRACK_PROCFS.
func (r *Reader) conntrackEntries(dir string) (uint64, error) {
	if r.hostNet.ours {
		return readUint(r.root, dir, "nf_conntrack_count")
	}
	fs, err := procfs.NewFS(r.hostNet.proc)
	if err != nil {
		return 0, err
	}
	stats, err := fs.ConntrackStat()
	if err != nil {
		return 0, err
	}
	if len(stats) == 0 {
		return 0, errors.New("net/stat/nf_conntrack: empty")
	}
	return stats[0].Entries, nil // each CPU's line has the same
}

func readUint(elem ...string) (uint64, error) {
	file := filepath.Join(elem...)
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(firstLine(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return n, nil
}
