// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// stormEnv makes TestRealStorm one of full size, and says how long it lasts, such as 60s.
const stormEnv = "EBPFCONTAINER_STORM"

const (
	stormPerSecond = 50
	// stormSettled is after how long a container must be given under its name.
	stormSettled = 3 * time.Second
	// stormCPUSlack is what may be missing of each life: what its process has done between the attachments to hierarchies. Of one
	// in many that was more: it was preempted there, and went on with what the kernel had put off.
	stormCPUSlack, stormCPUMore = 500 * time.Microsecond, 5 * time.Millisecond
)

// Containers are replaced all the time. Two inventories see that, one of which tells containers apart by their names.
func TestRealStorm(t *testing.T) {
	names, lasts, keep, hurry := 100, 10*time.Second, 5*time.Second, true
	if env := os.Getenv(stormEnv); env != "" {
		var err error
		if lasts, err = time.ParseDuration(env); err != nil {
			t.Fatal(err)
		}
		names, keep, hurry = 500, 10*time.Second, false
	}
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	filesBefore := openFiles(t)
	s := newStorm(t, names, keep)
	watchers := openWatchers(s, &stormClock{})
	ended := false
	end := func() {
		if ended {
			return
		}
		ended = true
		for _, w := range watchers {
			if err := w.inv.Close(); err != nil {
				t.Error(err)
			}
		}
		s.close()
	}
	defer end()
	heapBefore := heapInUse()

	stop := make(chan struct{})
	var watching sync.WaitGroup
	for _, w := range watchers {
		watching.Go(func() { w.watch(stop) })
	}
	began := time.Now()
	s.each(s.start)
	t.Logf("%d containers after %v", names, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	cpuStart := cpuOfThis(t)
	replaced := s.rage(stormPerSecond, lasts)
	took := time.Since(began)
	t.Logf("%d replaced in %v, %.2f ms CPU of this process for each; resident %.1f MB", replaced, took.Round(time.Millisecond),
		(cpuOfThis(t)-cpuStart).Seconds()*1e3/float64(replaced), float64(resident(t))/1e6)
	time.Sleep(stormSettled + 1500*time.Millisecond)
	close(stop)
	watching.Wait()

	s.each(func(slot *stormSlot) error { s.kill(slot); return nil })
	for _, w := range watchers {
		w.expectTotals()
		if !w.byName { // else there may have been several lives between two snapshots
			w.expectAllSeen()
		}
	}
	s.each(s.remove)
	for _, w := range watchers {
		w.log()
		w.expectForgotten(hurry)
		w.before, w.last = nil, nil
	}
	s.logAnswers()
	s.forget()
	grown := int64(heapInUse()) - int64(heapBefore) //nolint:gosec // small
	t.Logf("heap has grown from %.1f MB by %.2f MB", float64(heapBefore)/1e6, float64(grown)/1e6)
	if grown > 6<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	end()
	if n := openFiles(t); n > filesBefore {
		t.Errorf("%d open files, %d before", n, filesBefore)
	}
}

// stormClock can be put forward.
type stormClock struct{ ahead atomic.Int64 }

func (c *stormClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// stormWatcher looks at the snapshots of one inventory.
type stormWatcher struct {
	t      *testing.T
	s      *storm
	inv    *Inventory
	byName bool
	clock  *stormClock

	took []time.Duration // by each snapshot

	mu     sync.Mutex
	before map[string]stormSeen // by identity, as last given
	last   map[string]stormSeen // by id, as last given live or gone
}

// stormSeen is a container as it was given.
type stormSeen struct {
	at time.Time
	c  Container
}

// openWatchers opens both at once: to load kernel programs takes a while.
func openWatchers(s *storm, clock *stormClock) []*stormWatcher {
	s.t.Helper()
	watchers := []*stormWatcher{newStormWatcher(s, false, clock), newStormWatcher(s, true, clock)}
	errs := make([]error, len(watchers))
	var opening sync.WaitGroup
	for i, w := range watchers {
		opening.Go(func() { errs[i] = w.open() })
	}
	opening.Wait()
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
	return watchers
}

func newStormWatcher(s *storm, byName bool, clock *stormClock) *stormWatcher {
	return &stormWatcher{t: s.t, s: s, byName: byName, clock: clock, before: map[string]stormSeen{}, last: map[string]stormSeen{}}
}

// open is Open with a clock.
func (w *stormWatcher) open() error {
	opts := Options{
		CgroupRoot:     "/sys/fs/cgroup",
		Include:        []*regexp.Regexp{regexp.MustCompile("^/docker/([0-9a-f]{12}_)?(storm-|" + w.s.prefix + ")")},
		NameIsIdentity: w.byName,
		Keep:           w.s.keep,
		Runtimes: RuntimesOptions{Enabled: true, Sockets: map[string][]string{
			"docker": {w.s.docker.socket}, "podman": nil, "cri": nil, "containerd": nil, "systemd": nil,
		}},
		Disks:   DisksOptions{Enabled: true, Tmpfs: true},
		Network: NetworkOptions{Enabled: true, IdleTimeout: 15 * time.Minute, MaxDestinations: 500, MaxListeners: 100},
		Logger:  zaptest.NewLogger(w.t, zaptest.Level(zap.WarnLevel)),
	}
	fs, err := cgroups.Open(opts.CgroupRoot)
	if err != nil {
		return err
	}
	k := bpf.Open(bpf.Options{
		LegacyController: fs.LegacyController(), CgroupRoot: fs.UnifiedDir(), Network: true, DiskIO: !fs.HasIOController(),
	})
	if w.inv, err = open(w.t.Context(), opts, fs, host{k, "/proc"}, openRuntimes, w.clock.now); err != nil {
		return err
	}
	for _, f := range w.inv.Status().Features {
		switch f.Name {
		case bpf.FeatureCgroupEvents, bpf.FeatureTasks, bpf.FeatureNetwork:
			if f.Err != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", f.Name, f.Err))
			}
		}
	}
	return err
}

func (w *stormWatcher) errorf(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("by name %v: %s", w.byName, fmt.Sprintf(format, args...))
}

// watch takes a snapshot each second, sometimes two at a time.
func (w *stormWatcher) watch(stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if n%5 != 4 {
			w.look()
			continue
		}
		var both sync.WaitGroup
		both.Go(func() { w.look() })
		both.Go(func() { w.look() })
		both.Wait()
	}
}

// look checks one snapshot.
func (w *stormWatcher) look() Snapshot {
	must := w.s.settled()
	began := time.Now()
	snapshot, err := w.inv.Snapshot(w.t.Context())
	took := time.Since(began)
	if err != nil {
		w.errorf("%v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took = append(w.took, took)
	w.expectUnique(snapshot)
	w.expectPresent(snapshot, w.s.still(must))
	w.expectRising(snapshot)
	return snapshot
}

// identity is all that tells the series of c from those of others.
func (w *stormWatcher) identity(c *Container) string {
	if w.byName {
		return c.Name
	}
	if c.Info == nil {
		return fmt.Sprint(c.Ref.ID, " ", c.Ref.Runtime)
	}
	return fmt.Sprint(c.Ref.ID, " ", c.Info.Runtime, " ", c.Info.Name, " ", c.Info.ImageName, c.Info.ImageTags)
}

func (w *stormWatcher) expectUnique(snapshot Snapshot) {
	identities, lives := map[string]*Container{}, map[string]*Container{}
	for i := range snapshot.Containers {
		c := &snapshot.Containers[i]
		if !strings.HasPrefix(c.Ref.ID, w.s.prefix) {
			w.errorf("not ours: %s", c.Name)
		}
		identity := w.identity(c)
		if other := identities[identity]; other != nil {
			w.errorf("twice: %s (%s %v, %s %v)", identity, other.Ref.ID, other.Phase, c.Ref.ID, c.Phase)
		}
		identities[identity] = c
		if c.Phase == Ended {
			continue
		}
		if other := lives[c.Ref.ID]; other != nil {
			w.errorf("%s is %s and %s", c.Ref.ID, other.Name, c.Name)
		}
		lives[c.Ref.ID] = c
		w.last[c.Ref.ID] = stormSeen{snapshot.At, *c}
	}
}

func (w *stormWatcher) expectPresent(snapshot Snapshot, must []stormMust) {
	byID := map[string]*Container{}
	for i := range snapshot.Containers {
		if c := &snapshot.Containers[i]; c.Phase != Ended {
			byID[c.Ref.ID] = c
		}
	}
	for _, m := range must {
		c := byID[m.id]
		if c == nil {
			w.errorf("missing: %s, %s since %v", m.name, m.id, time.Since(m.since))
			continue
		}
		if c.Name != "/docker/"+m.name || c.Phase != Live || c.Info == nil || c.Info.Name != m.name || c.InfoLabels.Image != m.image {
			w.errorf("%s is %s, phase %v, info %+v, want %s since %v", m.id, c.Name, c.Phase, c.Info, m.name, time.Since(m.since))
		}
	}
}

// expectRising checks that no total goes backwards.
func (w *stormWatcher) expectRising(snapshot Snapshot) {
	for i := range snapshot.Containers {
		c := &snapshot.Containers[i]
		identity := w.identity(c)
		was, ok := w.before[identity]
		if c.Phase == Ended || was.at.After(snapshot.At) { // of two at a time
			continue
		}
		w.before[identity] = stormSeen{snapshot.At, *c}
		if !ok || !c.Start.Equal(was.c.Start) {
			continue
		}
		now, then := stormSums(c), stormSums(&was.c)
		for what := range now {
			if now[what] < then[what] {
				w.errorf("%s: %s %d after %d, phase %v after %v", identity, what, now[what], then[what], c.Phase, was.c.Phase)
			}
		}
	}
}

// stormSums are totals of a container that a storm moves.
func stormSums(c *Container) map[string]uint64 {
	sums := map[string]uint64{
		"CPU":       uint64(c.Stats.CPU.Usage.V),        //nolint:gosec // positive
		"CPU delay": uint64(c.Tasks.Delays[DelayCPU].V), //nolint:gosec // positive
		"restarts":  c.Tasks.Restarts.V,
		"exits":     c.Tasks.Exits.V[ExitSignal],
	}
	for i := range c.Edges {
		sums["connects"] += c.Edges[i].Connects
		sums["bytes"] += c.Edges[i].BytesReceived
	}
	return sums
}

// expectTotals checks what is given of all when their processes have ended.
func (w *stormWatcher) expectTotals() {
	w.t.Helper()
	snapshot := w.look()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	want := map[string]*stormTotals{}
	for _, slot := range w.s.slots {
		switch {
		case !w.byName:
			want[slot.id] = w.s.byID[slot.id]
		case slot.kind == stormPlain || slot.kind == stormSameID:
			want[slot.name] = &slot.totals
		}
	}
	var all, told stormTotals
	for i := range snapshot.Containers {
		c := &snapshot.Containers[i]
		key := c.Ref.ID
		if w.byName {
			key = strings.TrimPrefix(c.Name, "/docker/")
		}
		if c.Phase != Live || want[key] == nil {
			continue
		}
		w.expectTotal(c, want[key])
		all.add(want[key])
		told.cpu += c.Stats.CPU.Usage.V
		delete(want, key)
	}
	for key := range want {
		w.errorf("missing at the end: %s", key)
	}
	w.t.Logf("by name %v: CPU %v of %v in %d lives", w.byName, told.cpu, all.cpu, all.lives)
	if slack := all.cpuSlack(); told.cpu < all.cpu-slack || told.cpu > all.cpu+slack {
		w.errorf("CPU %v of all, the cgroups said %v in %d lives", told.cpu, all.cpu, all.lives)
	}
}

func (w *stormWatcher) expectTotal(c *Container, want *stormTotals) {
	w.t.Helper()
	sums := stormSums(c)
	if sums["restarts"] != want.lives-1 || sums["exits"] != want.ended || sums["connects"] != want.lives {
		w.errorf("%s %s: %d restarts, %d exits, %d connects, want %d, %d, %d", c.Name, c.Ref.ID,
			sums["restarts"], sums["exits"], sums["connects"], want.lives-1, want.ended, want.lives)
	}
	if got, slack := c.Stats.CPU.Usage.V, want.cpuSlack()+stormCPUMore; got < want.cpu-slack || got > want.cpu+slack {
		w.errorf("%s %s: CPU %v, the cgroups said %v in %d lives", c.Name, c.Ref.ID, got, want.cpu, want.lives)
	}
}

func (t *stormTotals) cpuSlack() time.Duration {
	return t.cpu/50 + time.Duration(t.lives)*stormCPUSlack //nolint:gosec // few
}

// expectAllSeen checks that each container was given, with all its totals if it was given after its end.
func (w *stormWatcher) expectAllSeen() {
	w.t.Helper()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	var last int
	for id, want := range w.s.byID {
		seen, ok := w.last[id]
		if !ok {
			w.errorf("never seen: %s, %+v", id, want)
			continue
		}
		if seen.c.Phase == Gone && seen.at.Sub(want.endedAt) > time.Second {
			last++
			w.expectTotal(&seen.c, want)
		}
	}
	w.t.Logf("%d containers, %d seen after their end", len(w.s.byID), last)
}

func (w *stormWatcher) log() {
	slices.Sort(w.took)
	st := w.inv.Status()
	w.t.Logf("by name %v: %d snapshots, median %v, longest %v; %d events lost, %d dropped; %d read errors, %d walk errors; runtimes %+v",
		w.byName, len(w.took), w.took[len(w.took)/2], w.took[len(w.took)-1], st.EventsLost, st.EventsDropped, st.ReadErrors,
		st.WalkErrors, st.Runtimes)
	if st.EventsLost+st.EventsDropped+st.ReadErrors+st.WalkErrors+st.TasksUnaccounted+st.EdgesUnaccounted > 0 {
		w.errorf("status %+v", st)
	}
}

// expectForgotten checks that nothing of any container is left when its end has been told.
func (w *stormWatcher) expectForgotten(hurry bool) {
	w.t.Helper()
	if hurry {
		w.clock.ahead.Store(int64(2*w.s.keep + time.Second))
	}
	var left map[string]int
	for end := time.Now().Add(2*w.s.keep + 3*cleanEvery); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if left = w.left(); len(left) == 0 {
			break
		}
	}
	if len(left) > 0 {
		w.errorf("left: %v", left)
	}
	if snapshot, err := w.inv.Snapshot(w.t.Context()); err != nil || len(snapshot.Containers) > 0 {
		w.errorf("%d containers still given, %v", len(snapshot.Containers), err)
	}
}

// left counts what the inventory and the kernel's tables still have of our containers.
func (w *stormWatcher) left() map[string]int {
	inv, left := w.inv, map[string]int{}
	ours := func(v2, v1 uint64) bool {
		return w.s.ours[cgroups.ID{Hierarchy: cgroups.Unified, Inode: v2}] ||
			w.s.ours[cgroups.ID{Hierarchy: cgroups.Legacy, Inode: v1}]
	}
	count := func(what string, isOurs bool) {
		if isOurs {
			left[what]++
		}
	}
	isOurs := func(ref cgroups.Ref) bool { return strings.HasPrefix(ref.ID, w.s.prefix) }
	defer inv.lockAll()()
	for _, c := range inv.containers {
		count("containers", isOurs(c.ref))
	}
	for ref := range inv.asked {
		count("asked", isOurs(ref))
	}
	for p := range inv.places {
		count("places", strings.HasPrefix(p.path, w.s.base))
	}
	for id := range inv.dirs {
		count("dirs", w.s.ours[id])
	}
	for id := range inv.usages {
		count("usages", ours(id[0], id[1]))
	}
	for key := range inv.diskUses {
		count("disk uses", ours(key.cgroupV2, key.cgroupV1))
	}
	for range inv.strangeExits {
		count("exits", true)
	}
	err := errors.Join(
		inv.kernel.ReadUsages(func(u *bpf.Usage) { count("usages in the kernel", ours(u.CgroupV2, u.CgroupV1)) }),
		inv.kernel.ReadDiskIO(func(io *bpf.DiskIO) { count("disk uses in the kernel", ours(io.CgroupV2, io.CgroupV1)) }),
		inv.kernel.Read(bpf.Pass{
			Edge:     func(e *bpf.Edge) { count("edges in the kernel", ours(e.CgroupV2, e.CgroupV1)) },
			Listener: func(l *bpf.Listener) { count("listeners in the kernel", ours(l.CgroupV2, l.CgroupV1)) },
		}),
	)
	if err != nil {
		w.errorf("%v", err)
	}
	return left
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func cpuOfThis(t *testing.T) time.Duration {
	t.Helper()
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// openFiles counts those of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// resident is the memory of this process, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
