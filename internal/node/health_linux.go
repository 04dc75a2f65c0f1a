// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

var errAsleep = errors.New("asleep")

const (
	askEvery  = 5 * time.Minute
	goodFor   = 3 * askEvery // older answers of a disk that is awake are no answers
	closeWait = time.Second
)

var nvmeNamespace = regexp.MustCompile(`^nvme\d+n\d+$`)

// healthMonitor asks disks how they are, each in a goroutine of its own for as long as that takes: one that is about to die
// may keep a question for minutes. There is never more than one question to a disk.
type healthMonitor struct {
	root  string
	ioctl ioctlFunc
	now   func() time.Time

	wg    sync.WaitGroup
	mu    sync.Mutex // owner of what follows
	disks map[string]*diskHealth
	over  bool
}

// diskHealth is what is known of one disk.
type diskHealth struct {
	asked  time.Time // when the last question was asked, and then when it was answered
	busy   bool      // a goroutine waits for its answer
	health Opt[Health]
	told   time.Time // when it said so, or when it was found asleep
	err    error
}

func newHealthMonitor(root string) *healthMonitor {
	return &healthMonitor{root: root, ioctl: ioctl, now: time.Now, disks: map[string]*diskHealth{}}
}

func (r *Reader) readHealth(_ context.Context, st *Stats) (err error) {
	st.Health, err = r.health.read()
	return err
}

// read returns what the disks said when they were last asked, and has those asked whose answers are old. The error is of
// those that could not be asked.
func (m *healthMonitor) read() ([]Health, error) {
	entries, err := os.ReadDir(filepath.Join(m.root, "sys/block"))
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		if how := m.kind(name); how != nil {
			known[name] = true
			m.askIfDue(name, how)
		}
	}
	maps.DeleteFunc(m.disks, func(name string, d *diskHealth) bool { return !known[name] && !d.busy })

	var told []Health
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(m.disks)) {
		d := m.disks[name]
		if d.health.OK && m.now().Sub(d.told) <= goodFor {
			told = append(told, d.health.V)
		}
		if waiting := m.now().Sub(d.asked); d.busy && waiting > 2*answerTimeout {
			errs = append(errs, repeatedError{fmt.Errorf("%s has not answered for %v", validName(name), waiting.Round(time.Second))})
		} else if d.err != nil {
			errs = append(errs, d.err)
			d.err = repeatedError{d.err}
		}
	}
	return told, join(errs...)
}

// kind is how to ask the disk, nil if it cannot be asked. Only disks that the kernel presents as ATA get ATA commands:
// some bridges and controllers hang over what they do not know.
func (m *healthMonitor) kind(name string) func(*device) (Health, error) {
	switch {
	case nvmeNamespace.MatchString(name):
		return (*device).nvmeSMART
	case strings.HasPrefix(name, "sd") && readLine(m.sys(name), "device/vendor") == "ATA":
		return (*device).ataSMART
	}
	return nil
}

func (m *healthMonitor) sys(name string) string { return filepath.Join(m.root, "sys/block", name) }

func (m *healthMonitor) askIfDue(name string, how func(*device) (Health, error)) {
	d := m.disks[name]
	if d == nil {
		d = &diskHealth{}
		m.disks[name] = d
	}
	if m.over || d.busy || !d.asked.IsZero() && m.now().Sub(d.asked) < askEvery {
		return
	}
	d.asked, d.busy = m.now(), true
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		health, err := m.ask(name, how)
		m.mu.Lock()
		defer m.mu.Unlock()
		d.asked, d.busy = m.now(), false
		m.keep(name, d, health, err)
	}()
}

func (m *healthMonitor) ask(name string, how func(*device) (Health, error)) (Health, error) {
	if m.suspended(name) {
		return Health{}, errAsleep
	}
	dev, err := openDevice(filepath.Join(m.root, "dev", name), m.ioctl)
	if err != nil {
		return Health{}, err
	}
	defer dev.close()
	return how(dev)
}

// suspended reports whether the kernel has put the disk to sleep: already to open it would wake it. Of NVMe the disk's
// device is the controller and the next one is PCI's.
func (m *healthMonitor) suspended(name string) bool {
	for _, file := range []string{"device/power/runtime_status", "device/device/power/runtime_status"} {
		switch readLine(m.sys(name), file) {
		case "suspended", "suspending":
			return true
		}
	}
	return false
}

func (m *healthMonitor) keep(name string, d *diskHealth, health Health, err error) {
	d.err = nil
	switch {
	case err == nil:
		health.Disk = validName(name)
		d.health, d.told = Some(health), m.now()
	case errors.Is(err, errAsleep):
		d.health.V.Temperature = Opt[int]{}
		d.told = m.now()
	case errors.Is(err, errNoAnswer):
		d.health = Opt[Health]{}
	default:
		d.err = fmt.Errorf("%s: %w", validName(name), err)
	}
}

// close waits for the answers that are due, if they come soon. A goroutine whose disk does not answer ends when the
// kernel gives up.
func (m *healthMonitor) close() {
	m.mu.Lock()
	m.over = true
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		m.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closeWait):
	}
}
