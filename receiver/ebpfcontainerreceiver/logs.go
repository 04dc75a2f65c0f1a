// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

const (
	// maxWaiting events wait for a consumer that is slow; then they wait in the inventory, which drops and counts.
	maxWaiting = 1024
	// maxBatch events, or those of batchTime, are given at once.
	maxBatch  = 100
	batchTime = 200 * time.Millisecond
	// firstRetry is the wait before the second attempt to give a batch. It doubles up to lastRetry, after which the batch
	// is dropped: six attempts in 16 seconds.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 8 * time.Second
	// shutdownGrace is how long a consumer may take to notice that the deadline of Shutdown is over.
	shutdownGrace = time.Second
	// maxReasons to drop records are told one by one; all are counted.
	maxReasons = 16
)

// eventLogs is the logs signal of an instance: a record for each exit of a main process and each OOM kill, for each new pattern
// of a log, and for the messages that logs.forward asks for.
//
// One goroutine follows the inventory, another one gives batches to the next consumer. Neither holds up the inventory.
type eventLogs struct {
	*signal
	cfg  *Config
	set  receiver.Settings
	next consumer.Logs
	obs  *receiverhelper.ObsReport

	// set by Start
	running  *running
	records  *recordWriter
	queue    chan inventory.Event
	stopping context.Context // over when Shutdown begins
	stop     context.CancelFunc
	giving   context.Context // over when Shutdown has no more time
	giveUp   context.CancelFunc
	follower sync.WaitGroup
	given    chan struct{} // closed when all is given or dropped

	reasons map[string]bool // why records were dropped so far; of the giving goroutine
}

func newEventLogs(cfg *Config, set receiver.Settings, next consumer.Logs) (*eventLogs, error) {
	obs, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{
		ReceiverID: set.ID, ReceiverCreateSettings: set,
	})
	if err != nil {
		return nil, fmt.Errorf("register the metrics of the logs signal: %w", err)
	}
	return &eventLogs{cfg: cfg, set: set, next: next, obs: obs, reasons: map[string]bool{}}, nil
}

// Start implements component.Component.
func (l *eventLogs) Start(ctx context.Context, host component.Host) error {
	r, err := l.start(ctx, host)
	if err != nil {
		return err
	}
	l.running = r
	l.records = newRecordWriter(l.cfg, l.set, r.host)
	l.records.where = r.instance
	l.queue = make(chan inventory.Event, maxWaiting)
	l.given = make(chan struct{})
	l.stopping, l.stop = context.WithCancel(context.Background())
	l.giving, l.giveUp = context.WithCancel(context.Background())
	l.follower.Go(func() {
		defer close(l.queue)
		r.containers.FollowEvents(l.stopping, l.take)
	})
	go func() {
		defer close(l.given)
		l.giveAll()
	}()
	return nil
}

// Shutdown implements component.Component. What is waiting is given before, in one attempt, while ctx lasts.
func (l *eventLogs) Shutdown(ctx context.Context) error {
	if !l.started {
		return l.signal.Shutdown(ctx)
	}
	_ = l.running.containers.EndLogs() // Close says it again
	l.stop()
	defer l.giveUp()
	var late error
	select {
	case <-l.given:
	case <-ctx.Done():
		l.giveUp()
		select {
		case <-l.given:
		case <-time.After(shutdownGrace):
			late = fmt.Errorf("the consumer of records does not return: %w", ctx.Err())
		}
	}
	l.follower.Wait() // it uses the inventory
	return errors.Join(late, l.signal.Shutdown(ctx))
}

// take waits while the queue is full: the inventory drops what it has no room for.
func (l *eventLogs) take(e inventory.Event) {
	select {
	case l.queue <- e:
	case <-l.giving.Done():
		l.drop(e)
	}
}

// drop counts records that are not given.
func (l *eventLogs) drop(batch ...inventory.Event) {
	for i := range batch {
		if batch[i].Kind == inventory.EventLog {
			l.running.dropped.messages.Add(1)
		} else {
			l.running.dropped.events.Add(1)
		}
	}
}

// giveAll runs until the queue is closed and empty.
func (l *eventLogs) giveAll() {
	batch := make([]inventory.Event, 0, maxBatch)
	for e := range l.queue {
		batch = l.gather(append(batch[:0], e))
		if l.giving.Err() != nil {
			l.drop(batch...)
			continue
		}
		l.give(batch)
	}
}

// gather adds to batch what comes within batchTime, as long as it fits.
func (l *eventLogs) gather(batch []inventory.Event) []inventory.Event {
	timer := time.NewTimer(batchTime)
	defer timer.Stop()
	for len(batch) < maxBatch {
		select {
		case e, ok := <-l.queue:
			if !ok {
				return batch
			}
			batch = append(batch, e)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

// give hands on one batch, or drops it.
func (l *eventLogs) give(batch []inventory.Event) {
	ctx := l.obs.StartLogsOp(l.giving)
	err := l.consume(ctx, batch)
	l.obs.EndLogsOp(ctx, metadata.Type.String(), len(batch), err)
	if err == nil {
		return
	}
	l.drop(batch...)
	if text := err.Error(); !l.reasons[text] && len(l.reasons) < maxReasons {
		l.reasons[text] = true
		l.set.Logger.Warn("records are lost, from now on they are counted in events_dropped and log_records_dropped",
			zap.Int("records", len(batch)), zap.Error(err))
	}
}

// consume tries several times, once when shutting down. A consumer that has taken a part before it failed gets that twice.
func (l *eventLogs) consume(ctx context.Context, batch []inventory.Event) error {
	observed := time.Now()
	for wait := firstRetry; ; wait *= 2 {
		last := wait > lastRetry || l.stopping.Err() != nil
		// Made anew each time: the consumer owns, and may have changed, what it got.
		err := l.next.ConsumeLogs(ctx, l.records.write(batch, observed))
		if err == nil || last || ctx.Err() != nil || consumererror.IsPermanent(err) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.stopping.Done():
			timer.Stop()
		}
	}
}
