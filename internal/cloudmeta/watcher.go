// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Options configure a Watcher. The zero value asks about the machine that the process runs on.
type Options struct {
	// Root is where the host's file system is, "" for /. Its /sys tells the provider, its /proc/1/ns/net where to ask from.
	Root string
	// Override has what the user sets; it wins. A provider is then not looked for; one that is not known is not asked. When
	// everything but the addresses and the zone's id is set, nothing is asked at all. A text that Validate refuses is left out.
	Override Instance
	Logger   *zap.Logger

	timing timing
	dial   func(context.Context, netip.AddrPort) (net.Conn, error) // for tests; default: from the host's network namespace
	roots  *x509.CertPool                                          // for tests; default: those of the system
}

// timing has the durations, so that a test can be faster. 0 is the default.
type timing struct {
	request  time.Duration // for a request with its answer, 1 s
	attempt  time.Duration // for all requests of an attempt, 5 s
	first    time.Duration // between the first two attempts, 1 s; each pause is twice the one before
	longest  time.Duration // between two attempts, 30 s
	giveUp   time.Duration // how long attempts are repeated, 5 min
	interval time.Duration // between two rounds of attempts, 1 h
}

func (t timing) withDefaults() timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.request, time.Second}, {&t.attempt, 5 * time.Second}, {&t.first, time.Second}, {&t.longest, 30 * time.Second},
		{&t.giveUp, 5 * time.Minute}, {&t.interval, time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// Status tells how a Watcher fares.
type Status struct {
	Provider Provider // found or configured, "" for none
	Asking   bool     // whether there is anything to ask and anybody who can be asked

	// HostNetwork says whether the questions come from the host's network namespace, or from that of this process because of
	// NamespaceErr. From another namespace the answers of some providers do not arrive.
	HostNetwork  bool
	NamespaceErr error

	Requests uint64
	Failures map[Failure]uint64 // since Open; a copy
	LastErr  error              // of the last attempt, nil when it brought everything
	AskedAt  time.Time          // the end of the last attempt
	KnownAt  time.Time          // the end of the last attempt that brought something
	Next     time.Time          // when to ask again
}

// Watcher learns the instance in the background and keeps what it knows. Its methods may be called by any number of goroutines.
type Watcher struct {
	opts   Options
	log    *zap.Logger
	space  *namespace
	cancel context.CancelFunc
	done   chan struct{}

	// Owned by run: what was logged since all went well, and whether that was.
	logged map[Failure]bool
	said   bool

	mu     sync.Mutex // of the rest
	known  Instance   // zero until the service has answered
	status Status
}

// Open finds the provider and begins to ask its metadata service. It reads a few small files and waits for nothing else.
func Open(o Options) *Watcher {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	o.timing = o.timing.withDefaults()
	w := &Watcher{opts: o, log: o.Logger, done: make(chan struct{}), logged: map[Failure]bool{}, cancel: func() {}}
	w.status.Failures = map[Failure]uint64{}
	override := &w.opts.Override
	for _, text := range override.texts() {
		if err := checkText(*text); err != nil {
			w.log.Warn("a configured value of the cloud instance is left out", zap.Error(err))
			*text = ""
		}
	}
	if override.Provider == "" {
		w.status.Provider = detect(o.Root)
	} else {
		override.Provider, _ = ParseProvider(string(override.Provider))
		w.status.Provider = override.Provider
	}
	ask := askOf(w.status.Provider)
	w.status.Asking = ask != nil && !isComplete(*override)
	if !w.status.Asking {
		close(w.done)
		return w
	}
	w.openNamespace()
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go w.run(ctx, ask)
	return w
}

func askOf(p Provider) func(*asker) Instance {
	for _, known := range providers {
		if p == known.name {
			return known.ask
		}
	}
	return nil
}

// isComplete says whether the user has set all that can be set.
func isComplete(i Instance) bool {
	for _, text := range i.texts() {
		if *text == "" && text != &i.AvailabilityZoneID {
			return false
		}
	}
	return true
}

// openNamespace decides where questions come from.
func (w *Watcher) openNamespace() {
	if w.opts.dial != nil {
		return
	}
	space, err := openNamespace(filepath.Join(w.opts.Root, "proc/1/ns/net"))
	w.space = space
	w.opts.dial = space.dial
	w.status.HostNetwork = true
	w.stayHome(err)
}

// checkNamespace finds out whether the host's namespace can be entered, which shows at the first attempt.
func (w *Watcher) checkNamespace() {
	if w.space != nil {
		w.stayHome(w.space.refusal())
	}
}

// stayHome says once why questions come from our own namespace; nil is no reason.
func (w *Watcher) stayHome(err error) {
	w.mu.Lock()
	first := err != nil && w.status.HostNetwork
	if first {
		w.status.HostNetwork, w.status.NamespaceErr = false, err
	}
	w.mu.Unlock()
	if first {
		w.log.Info("the cloud's metadata service is asked from the collector's own network namespace", zap.Error(err))
	}
}

// Instance returns what is known by now. It is false when nothing is: on a machine of no cloud, or until the first answer,
// unless something is configured. It never waits for a cloud.
func (w *Watcher) Instance() (Instance, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := w.opts.Override.or(w.known)
	if i == (Instance{}) {
		return Instance{}, false
	}
	i.Provider = w.status.Provider
	return i, true
}

// Status returns how it goes. It never waits for a cloud.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	s.Failures = maps.Clone(s.Failures)
	return s
}

// Close ends the asking and waits until it has ended. What is known stays.
func (w *Watcher) Close() error {
	w.cancel()
	<-w.done
	return nil
}

// run asks until ctx ends: each hour, and meanwhile with growing pauses as long as something is missing, but not for longer than
// 5 minutes in each hour.
func (w *Watcher) run(ctx context.Context, ask func(*asker) Instance) {
	defer close(w.done)
	if w.space != nil {
		defer w.space.close()
	}
	t := w.opts.timing
	round, pause := time.Now(), t.first
	for {
		complete := w.attempt(ctx, ask)
		wait := pause
		if pause = min(2*pause, t.longest); complete || time.Since(round)+wait > t.giveUp {
			wait, pause = max(t.interval-time.Since(round), 0), t.first
			round = time.Now().Add(wait)
		}
		w.mu.Lock()
		w.status.Next = time.Now().Add(wait)
		w.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// attempt asks once for everything, and returns whether all of it has come.
func (w *Watcher) attempt(ctx context.Context, ask func(*asker) Instance) bool {
	limited, cancel := context.WithTimeout(ctx, w.opts.timing.attempt)
	defer cancel()
	a := &asker{ctx: limited, timeout: w.opts.timing.request, dial: w.opts.dial, roots: w.opts.roots}
	defer a.close()
	i := ask(a)
	if i.InstanceID == "" && len(a.failures) == 0 {
		a.fail(fmt.Errorf("no id of the instance: %w", errMalformed))
	}
	if ctx.Err() != nil { // closed meanwhile: what failed, failed for that
		return false
	}
	w.checkNamespace()
	w.take(a, i)
	w.tell(a, i)
	return len(a.failures) == 0
}

// take keeps what an attempt brought.
func (w *Watcher) take(a *asker, i Instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &w.status
	s.Requests += a.requests
	for _, err := range a.failures {
		s.Failures[kindOf(err)]++
	}
	s.LastErr = errors.Join(a.failures...)
	s.AskedAt = time.Now()
	if i.InstanceID == "" {
		return // what was known stays known
	}
	s.KnownAt = s.AskedAt
	if len(a.failures) > 0 && i.InstanceID == w.known.InstanceID {
		i = i.or(w.known) // what did not come this time
	}
	w.known = i
}

// tell logs each cause once, until all goes well again.
func (w *Watcher) tell(a *asker, i Instance) {
	provider := zap.String("provider", string(w.status.Provider)) // does not change after Open
	if len(a.failures) == 0 {
		if !w.said {
			w.log.Info("the cloud instance is known", provider, zap.String("id", i.InstanceID))
		}
		w.said = true
		clear(w.logged)
		return
	}
	for _, err := range a.failures {
		if kind := kindOf(err); !w.logged[kind] {
			w.logged[kind], w.said = true, false
			w.log.Warn("the cloud's metadata service does not tell everything", provider, zap.String("kind", string(kind)), zap.Error(err))
		}
	}
}
