// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// procfsHZ is the frequency that the library divides ticks by.
const procfsHZ = 100

// userHZ is the frequency of the ticks in which /proc/stat counts.
func userHZ() float64 {
	const clockTicks = 17 // AT_CLKTCK, include/uapi/linux/auxvec.h
	auxv, err := unix.Auxv()
	if err != nil {
		return procfsHZ
	}
	for _, entry := range auxv {
		if entry[0] == clockTicks && entry[1] > 0 {
			return float64(entry[1])
		}
	}
	return procfsHZ
}

func (r *Reader) readUptime(_ context.Context, st *Stats) error {
	b, err := os.ReadFile(filepath.Join(r.root, "proc/uptime"))
	if err != nil {
		return err
	}
	uptime, err := parseUptime(string(b))
	if err != nil {
		return err
	}
	st.Uptime = Some(uptime)
	return nil
}

// parseUptime reads /proc/uptime: seconds since boot, then seconds that CPUs were idle.
func parseUptime(s string) (time.Duration, error) {
	first, _, _ := strings.Cut(s, " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil || !(seconds >= 0 && seconds < 1e9) {
		return 0, fmt.Errorf("uptime %.64q: not seconds", s)
	}
	return time.Duration(math.Round(seconds*100)) * 10 * time.Millisecond, nil // the kernel writes hundredths
}

func (r *Reader) readCPU(_ context.Context, st *Stats) error {
	stat, err := r.proc.Stat()
	if err != nil {
		return err
	}
	if len(stat.CPU) == 0 {
		return errors.New("stat: no CPU")
	}
	r.cpu = newCPU(&stat, r.userHZ, r.cpu)
	st.CPU = Some(r.cpu)
	return nil
}

// newCPU takes from stat what is to be given after last.
func newCPU(stat *procfs.Stat, hz float64, last CPU) CPU {
	t := &stat.CPUTotal
	seconds := func(value, last float64) float64 {
		value = math.Round(value*procfsHZ) / hz
		// Idle and I/O wait are worked out while CPUs change them, and steal is what the hypervisor says: they fall by a few
		// ticks at times (Documentation/filesystems/proc.rst). More than that is another count.
		if value < last && last-value < 3 {
			return last
		}
		return value
	}
	return CPU{
		LogicalCores: len(stat.CPU),
		User:         seconds(t.User, last.User),
		Nice:         seconds(t.Nice, last.Nice),
		System:       seconds(t.System, last.System),
		Idle:         seconds(t.Idle, last.Idle),
		IOWait:       seconds(t.Iowait, last.IOWait),
		IRQ:          seconds(t.IRQ, last.IRQ),
		SoftIRQ:      seconds(t.SoftIRQ, last.SoftIRQ),
		Steal:        seconds(t.Steal, last.Steal),
	}
}

func (r *Reader) readMemory(_ context.Context, st *Stats) error {
	m, err := r.proc.Meminfo()
	if err != nil {
		return err
	}
	st.Memory = Memory{
		Total:     optOf(m.MemTotalBytes),
		Free:      optOf(m.MemFreeBytes),
		Available: optOf(m.MemAvailableBytes),
		Cached:    optOf(m.CachedBytes),
	}
	return nil
}

func optOf[T any](p *T) Opt[T] {
	if p == nil {
		return Opt[T]{}
	}
	return Some(*p)
}

func (r *Reader) readPressure(_ context.Context, st *Stats) error {
	var errs []error
	for _, resource := range []struct {
		name  string
		stall *Stall
	}{{"cpu", &st.Pressure.CPU}, {"memory", &st.Pressure.Memory}, {"io", &st.Pressure.IO}} {
		psi, err := r.proc.PSIStatsForResource(resource.name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		*resource.stall = Stall{Some: stallOf(psi.Some), Full: stallOf(psi.Full)}
	}
	// Since 5.13 the file has the line, always 0: see Documentation/accounting/psi.rst.
	st.Pressure.CPU.Full = Opt[time.Duration]{}
	return join(errs...)
}

func stallOf(line *procfs.PSILine) Opt[time.Duration] {
	if line == nil || line.Total > math.MaxInt64/uint64(time.Microsecond) {
		return Opt[time.Duration]{}
	}
	return Some(time.Duration(line.Total) * time.Microsecond) //nolint:gosec // checked
}
