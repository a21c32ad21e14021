// Package metrics exposes what the agent does and sees in Prometheus' format.
package metrics

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ravencni/raven/pkg/agent/probe"
	"github.com/ravencni/raven/pkg/agent/view"
)

// ProgramCounter is what one BPF program did to packets for one reason.
type ProgramCounter struct {
	Program, Verdict, Reason string
	Packets, Bytes           uint64
}

// Sources are asked at each scrape. A nil function has nothing to say.
type Sources struct {
	// View is the agent's latest view; it must not return nil.
	View func(context.Context) *view.View
	// Programs are the counters of the BPF programs.
	Programs func(context.Context) ([]ProgramCounter, error)
	// FilterDrops are the packets that the nft table dropped, by reason.
	FilterDrops func(context.Context) (map[string]uint64, error)
	// SnapshotAge is in seconds; negative: there is no snapshot.
	SnapshotAge func() float64
	// Quality of the ways to the tunnel's peers, by node.
	Quality func() map[string]probe.Quality
}

// Metrics are the agent's own registry.
type Metrics struct {
	registry *prometheus.Registry
	runs     *prometheus.CounterVec
	changes  *prometheus.CounterVec
	duration prometheus.Histogram
	ledger   ledger
}

// New makes the registry. version goes into raven_build_info.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raven_applier_runs_total", Help: "Runs of each part of an apply pass, by result (ok, error).",
		}, []string{"applier", "result"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raven_applier_changes_total", Help: "Writes to the kernel by each part of an apply pass.",
		}, []string{"applier"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "raven_pass_duration_seconds", Help: "Duration of whole apply passes.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "raven_build_info", Help: "1; its label is the agent's version.",
	}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.runs, m.changes, m.duration, info,
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	return m
}

// Observe adds what is read at scrape time.
func (m *Metrics) Observe(s Sources) { m.registry.MustRegister(newCollector(s)) }

// Register adds what another part counts.
func (m *Metrics) Register(c prometheus.Collector) { m.registry.MustRegister(c) }

// Handler serves the registry.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Ran counts one run of an applier.
func (m *Metrics) Ran(applier string, changes int, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.runs.WithLabelValues(applier, result).Inc()
	// Also with 0: a series that is there from the start shows that nothing changed.
	m.changes.WithLabelValues(applier).Add(float64(changes))
	m.ledger.add(applier, changes, err)
}

// Passed records the duration of a pass in seconds.
func (m *Metrics) Passed(seconds float64) { m.duration.Observe(seconds) }
