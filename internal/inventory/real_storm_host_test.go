// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// stormKind is how a container is replaced.
type stormKind int

const (
	stormPlain     stormKind = iota // by one with another id and the same name, which Docker forgets a while later
	stormSameID                     // by itself, as docker restart does
	stormBrief                      // as plain, but forgotten at once, as with --rm
	stormRenamed                    // as plain; in each life it has another name for a moment
	stormRecreated                  // as Docker Compose does: the old one gets another name before it is stopped
)

// kindOf is that of the nth name.
func kindOf(n int) stormKind {
	kinds := [10]stormKind{1: stormSameID, 2: stormSameID, 3: stormBrief, 4: stormRenamed, 5: stormRecreated}
	return kinds[n%len(kinds)]
}

// stormTotals are those of a container by one of its identities.
type stormTotals struct {
	lives, ended uint64
	cpu          time.Duration // of those that are over
	endedAt      time.Time     // of the last one, when its cgroup was removed
}

func (t *stormTotals) add(o *stormTotals) {
	t.lives, t.ended, t.cpu = t.lives+o.lives, t.ended+o.ended, t.cpu+o.cpu
}

// stormSlot is a name that one container after the other has. storm.mu guards all but name, image and kind.
type stormSlot struct {
	name, image string
	kind        stormKind
	totals      stormTotals

	busy  bool   // being replaced
	id    string // of the present container
	alias string // name that it has now
	since time.Time
	alive bool
	dirs  []string
	cmd   *exec.Cmd
}

// storm is containers as Docker makes them, below a cgroup of our own.
type storm struct {
	t      *testing.T
	docker *stormDocker
	peer   net.Listener // each life connects to it once
	peers  sync.WaitGroup
	roots  []string                     // of the hierarchies
	watch  map[string]cgroups.Hierarchy // of those that the inventory watches, by root
	base   string                       // in each of them
	prefix string                       // of all ids
	keep   time.Duration

	mu    sync.Mutex
	slots []*stormSlot
	byID  map[string]*stormTotals
	ours  map[cgroups.ID]bool // all cgroups that there have been
}

func newStorm(t *testing.T, names int, keep time.Duration) *storm {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes cgroups and loads BPF programs")
	}
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash: ", err)
	}
	now := uint64(time.Now().UnixNano()) //nolint:gosec // positive
	s := &storm{
		t: t, docker: newStormDocker(t), keep: keep,
		base: fmt.Sprintf("/ebpfcontainer-storm-%x", now), prefix: fmt.Sprintf("570a%016x", now),
		byID: map[string]*stormTotals{}, ours: map[cgroups.ID]bool{},
	}
	var err error
	if s.peer, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.peers.Go(func() {
		for {
			c, err := s.peer.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	s.roots = []string{"/sys/fs/cgroup"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		s.roots = nil
		for _, h := range []string{"unified", "memory", "cpu", "cpuacct", "pids", "blkio"} {
			if root := filepath.Join("/sys/fs/cgroup", h); isDirectory(root) {
				s.roots = append(s.roots, root)
			}
		}
	}
	tree, err := cgroups.Open("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	s.watch = map[string]cgroups.Hierarchy{
		filepath.Join("/sys/fs/cgroup", tree.LegacyController()): cgroups.Legacy, tree.UnifiedDir(): cgroups.Unified,
	}
	for _, root := range s.roots {
		if err := os.Mkdir(root+s.base, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile(root+s.base+"/cgroup.subtree_control", []byte("+cpu +memory +pids +io"), 0) // v2 only
	}
	for n := range names {
		s.slots = append(s.slots, &stormSlot{
			name: fmt.Sprintf("storm-%03d", n), image: fmt.Sprintf("registry.example/storm/app%d:1", n), kind: kindOf(n),
		})
	}
	return s
}

func isDirectory(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// close removes what is left.
func (s *storm) close() {
	for _, slot := range s.slots {
		s.kill(slot)
		for _, dir := range slot.dirs {
			_ = os.Remove(dir)
		}
	}
	for _, root := range s.roots {
		if err := os.Remove(root + s.base); err != nil {
			s.t.Error(err)
		}
	}
	_ = s.peer.Close()
	s.peers.Wait()
	s.docker.close()
}

// stormScript begins a program when it has been put into its cgroups, as runtimes do. That connects once and uses some CPU.
const stormScript = `echo waits; read -r go && exec bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" || exit
for ((i = 0; i < 2000; i++)); do :; done
echo ready; exec sleep 600 <&- >&- 3>&-' "$0"`

// start begins a life.
func (s *storm) start(slot *stormSlot) error {
	s.mu.Lock()
	if slot.id == "" || slot.kind != stormSameID {
		n := len(s.byID)
		slot.id = fmt.Sprintf("%s%0*x", s.prefix, 64-len(s.prefix), n)
		s.byID[slot.id] = &stormTotals{}
		s.docker.run(slot.id, slot.name, slot.image)
	}
	id := slot.id
	s.mu.Unlock()

	dirs := make([]string, len(s.roots))
	for i, root := range s.roots {
		dirs[i] = filepath.Join(root+s.base, id)
		if err := os.Mkdir(dirs[i], 0o755); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(dirs[i], &st); err != nil {
			return err
		}
		if h, ok := s.watch[root]; ok {
			s.mu.Lock()
			s.ours[cgroups.ID{Hierarchy: h, Inode: st.Ino}] = true
			s.mu.Unlock()
		}
	}
	slot.dirs = dirs
	cmd, err := s.launch(dirs)
	if err != nil {
		return fmt.Errorf("%s: %w", slot.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slot.cmd, slot.alias, slot.since, slot.alive = cmd, slot.name, time.Now(), true
	slot.totals.lives++
	s.byID[id].lives++
	return nil
}

// launch starts the main process of a container and returns when it has done its work.
func (s *storm) launch(dirs []string) (*exec.Cmd, error) {
	_, port, _ := net.SplitHostPort(s.peer.Addr().String())
	cmd := exec.Command("bash", "-c", stormScript, port) //nolint:gosec // ours
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	answers := bufio.NewReader(out)
	_, _ = answers.ReadString('\n') // from now on it uses no CPU
	for _, dir := range dirs {
		if err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
			break
		}
	}
	_, _ = io.WriteString(in, "go\n")
	line, _ := answers.ReadString('\n')
	if err != nil || line != "ready\n" {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("it says %q: %w", line, errors.Join(err, cmd.Wait()))
	}
	_, _ = in.Close(), out.Close()
	return cmd, nil
}

// kill ends the process, unless there is none, and takes down what its cgroup says.
func (s *storm) kill(slot *stormSlot) {
	s.mu.Lock()
	wasAlive := slot.alive
	slot.alive = false
	s.mu.Unlock()
	if !wasAlive {
		return
	}
	_ = slot.cmd.Process.Kill()
	_ = slot.cmd.Wait()
	cpu, err := s.cpuOf(slot)
	if err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slot.cmd = nil
	for _, t := range []*stormTotals{&slot.totals, s.byID[slot.id]} {
		t.ended++
		t.cpu += cpu
	}
}

// cpuOf reads what the present cgroup of a name has used.
func (s *storm) cpuOf(slot *stormSlot) (time.Duration, error) {
	for _, dir := range slot.dirs {
		if b, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage")); err == nil {
			ns, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			return time.Duration(ns), err
		}
	}
	for _, dir := range slot.dirs {
		if b, err := os.ReadFile(filepath.Join(dir, "cpu.stat")); err == nil {
			var us int64
			_, err := fmt.Sscanf(string(b), "usage_usec %d", &us)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, errors.New("no file tells the CPU usage")
}

// remove removes the cgroups of a name whose process has ended, and has Docker forget it.
func (s *storm) remove(slot *stormSlot) error {
	for _, i := range rand.Perm(len(slot.dirs)) { // runc has no order either
		dir := slot.dirs[i]
		err := unix.Rmdir(dir)
		for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); err = unix.Rmdir(dir) {
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slot.dirs = nil
	id := slot.id
	s.byID[id].endedAt = time.Now()
	switch slot.kind {
	case stormSameID:
	case stormBrief:
		s.docker.remove(id)
	default:
		time.AfterFunc(s.keep/2, func() { s.docker.remove(id) })
	}
	return nil
}

// rename is docker rename.
func (s *storm) rename(slot *stormSlot, name string) {
	s.mu.Lock()
	slot.alias, slot.since = name, time.Now()
	s.mu.Unlock()
	s.docker.rename(slot.id, name)
}

// replace ends a container and begins the next one with its name, mostly at once.
func (s *storm) replace(slot *stormSlot) error {
	if slot.kind == stormRecreated {
		s.rename(slot, slot.id[52:]+"_"+slot.name)
	}
	s.kill(slot)
	if err := s.remove(slot); err != nil {
		return err
	}
	switch rand.IntN(10) {
	case 0:
		time.Sleep(s.keep / 3)
	case 1, 2, 3:
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
	}
	if err := s.start(slot); err != nil {
		return err
	}
	if slot.kind == stormRenamed {
		s.rename(slot, slot.name+"-renamed")
		time.Sleep(200 * time.Millisecond)
		s.rename(slot, slot.name)
	}
	return nil
}

// rage replaces so many containers a second, chosen at random, and returns how many it did when all of them are up.
func (s *storm) rage(perSecond int, lasts time.Duration) (replaced int) {
	var workers sync.WaitGroup
	defer workers.Wait()
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for end := time.Now().Add(lasts); time.Now().Before(end); <-tick.C {
		slot := s.pick()
		if slot == nil {
			continue
		}
		replaced++
		workers.Go(func() {
			if err := s.replace(slot); err != nil {
				s.t.Error(err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			slot.busy = false
		})
	}
	return replaced
}

// pick chooses one that is not being replaced, nil if that is hard.
func (s *storm) pick() *stormSlot {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 100 {
		if slot := s.slots[rand.IntN(len(s.slots))]; slot.alive && !slot.busy {
			slot.busy = true
			return slot
		}
	}
	return nil
}

// each does something with all names, some at a time.
func (s *storm) each(do func(*stormSlot) error) {
	var workers sync.WaitGroup
	limit := make(chan struct{}, 16)
	for _, slot := range s.slots {
		limit <- struct{}{}
		workers.Go(func() {
			defer func() { <-limit }()
			if err := do(slot); err != nil {
				s.t.Error(err)
			}
		})
	}
	workers.Wait()
}

// stormMust is a container that must be given.
type stormMust struct {
	slot            *stormSlot
	id, name, image string
	since           time.Time
}

// settled lists the containers that have lived for a while under their names.
func (s *storm) settled() []stormMust {
	s.mu.Lock()
	defer s.mu.Unlock()
	var must []stormMust
	for _, slot := range s.slots {
		if slot.alive && time.Since(slot.since) > stormSettled {
			must = append(must, stormMust{slot, slot.id, slot.alias, slot.image, slot.since})
		}
	}
	return must
}

// still leaves those that live to this moment.
func (s *storm) still(must []stormMust) []stormMust {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(must, func(m stormMust) bool { return !m.slot.alive || !m.slot.since.Equal(m.since) })
}

// logAnswers tells how long containers waited for their first answer.
func (s *storm) logAnswers() {
	s.docker.mu.Lock()
	defer s.docker.mu.Unlock()
	all := s.docker.answers
	slices.Sort(all)
	s.t.Logf("%d containers told of: median %v, 99%% %v, longest %v after Docker knew them; %d questions in vain",
		len(all), all[len(all)/2], all[len(all)*99/100], all[len(all)-1], s.docker.unknown)
}

// forget lets go of all that is known of lives, so that it is not taken for a leak.
func (s *storm) forget() {
	s.mu.Lock()
	s.byID, s.ours = nil, nil
	s.mu.Unlock()
	s.docker.mu.Lock()
	defer s.docker.mu.Unlock()
	s.docker.answers = nil
	clear(s.docker.known)
}
