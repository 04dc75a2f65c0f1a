// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"sync"
	"time"
)

// follow follows the events of rt and returns why that ended, nil when ctx has.
func (d *Directory) follow(ctx context.Context, s *source, rt Runtime) error {
	if s.followBackoff > 0 && !sleep(ctx, time.Duration(s.followBackoff)) {
		return nil
	}
	var anew sync.WaitGroup
	defer anew.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.followed {
		anew.Go(func() { d.askAnew(ctx, s) })
	}
	s.followed = true
	began := time.Now()
	err := rt.Follow(ctx, func(id string) { d.renamed(ctx, s, id) })
	if err == nil {
		<-ctx.Done()
		return nil
	}
	if time.Since(began) > maxBackoff {
		s.followBackoff = 0
	}
	s.followBackoff.next()
	return err
}

// askAnew asks s for all containers that it knows, since it may have renamed some while its events were not followed.
func (d *Directory) askAnew(ctx context.Context, s *source) {
	if !sleep(ctx, settled) {
		return
	}
	var known []*question
	d.mu.Lock()
	for _, q := range d.questions {
		if q.from == s {
			known = append(known, q)
		}
	}
	d.mu.Unlock()
	for _, q := range known {
		d.mu.Lock()
		d.begin(ctx, q)
		d.mu.Unlock()
		if !sleep(ctx, askAnewEvery) {
			return
		}
	}
}

// renamed has a container asked for anew.
func (d *Directory) renamed(ctx context.Context, s *source, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.questions {
		switch {
		case q.ref.ID != id || q.from != nil && q.from != s:
		case q.at == nil:
			d.begin(ctx, q)
		case q.at == s:
			q.stale = true
		}
	}
}

// sleep tells false where ctx ended it.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
