// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/scraper/scrapererror"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// metricsScraper is the metrics signal of an instance. It is used by one goroutine.
type metricsScraper struct {
	*signal
	cfg *Config
	set receiver.Settings

	// set by Start
	running     *running
	metrics     *metricsWriter
	node        *nodeWriter
	read, build metric.MeasurementOption
}

func newMetricsScraper(sig *signal, cfg *Config, set receiver.Settings) *metricsScraper {
	return &metricsScraper{signal: sig, cfg: cfg, set: set}
}

// Start implements component.Component.
func (s *metricsScraper) Start(ctx context.Context, host component.Host) error {
	r, err := s.start(ctx, host)
	if err != nil {
		return err
	}
	s.running = r
	s.metrics = newMetricsWriter(s.cfg, s.set, r.host)
	s.metrics.where = r.instance
	s.node = newNodeWriter(s.cfg, s.set, r.host, s.metrics.resources)
	s.node.where = r.instance
	s.read = ownAttributes(s.set.ID, attribute.String("phase", metadata.AttributePhaseRead.String()))
	s.build = ownAttributes(s.set.ID, attribute.String("phase", metadata.AttributePhaseBuild.String()))
	return nil
}

// ScrapeMetrics implements scraper.Metrics. The only error is a missed deadline, or a node that leaves too little time before it;
// what was read is given.
func (s *metricsScraper) ScrapeMetrics(ctx context.Context) (pmetric.Metrics, error) {
	begin := time.Now()
	readNode := s.running.node.read(ctx)
	snapshot, err := s.running.containers.Snapshot(ctx)
	if err != nil {
		err = fmt.Errorf("read the containers: %w", err)
	}
	host := readNode()
	if host == nil && s.running.node != nil {
		err = errors.Join(err, errors.New("the node was not read in time"))
	}
	asked := time.Now()
	md := s.metrics.write(snapshot)
	s.node.write(host).MoveAndAppendTo(md.ResourceMetrics())
	if err != nil && md.ResourceMetrics().Len() > 0 {
		err = scrapererror.NewPartialScrapeError(err, 0)
	}

	durations := s.running.telemetry.EbpfContainerScrapeDuration
	durations.Record(ctx, asked.Sub(begin).Seconds(), s.read)
	durations.Record(ctx, time.Since(asked).Seconds(), s.build)
	return md, err
}
