// Package metrics counts what the L7 proxy does. No label grows with the number of nodes or clients: reasons and front
// ends are fixed lists, gateways are objects of the cluster.
package metrics

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ravencni/raven/pkg/proxy/refusal"
)

// Front ends, the values of label front. Edge is the side that serves reverse tunnels.
const (
	FrontTLS     = "tls"
	FrontHTTP    = "http"
	FrontConnect = "connect"
	FrontTunnel  = "tunnel"
	Edge         = "edge"
)

var fronts = []string{FrontTLS, FrontHTTP, FrontConnect, FrontTunnel, Edge}

// Loss says how a tunnel ended that nobody wanted to end, a label of raven_proxy_tunnels_lost_total.
type Loss string

const (
	// LostClosed: the other side, or its host, closed the connection.
	LostClosed Loss = "closed"
	// LostSilent: the other side vanished without a word.
	LostSilent Loss = "silent"
)

// Tunnel is one reverse tunnel at the side that was dialled.
type Tunnel struct {
	Gateway, Node string
	// RTT in seconds of the last ping; 0 before the first.
	RTT float64
	// Streams that are open.
	Streams int
}

// Refusals are what one front end refused for one reason.
type Refusals struct {
	Front  string
	Reason refusal.Reason
	Count  uint64
	// Last is when the last one was refused.
	Last time.Time
}

// kind is one of a fixed set.
type kind struct {
	front  string
	reason refusal.Reason
}

// Metrics of one proxy.
type Metrics struct {
	mu sync.Mutex
	// seen has what was refused, for tools that want to know when.
	seen      map[kind]Refusals
	streams   *prometheus.GaugeVec
	opened    *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	refused   *prometheus.CounterVec
	dialFails *prometheus.CounterVec
	lost      *prometheus.CounterVec
	tunnels   func() []Tunnel
	count     *prometheus.Desc
	rtt       *prometheus.Desc
}

// New makes the metrics of a proxy. tunnels is asked at each scrape; nil: there are none.
func New(tunnels func() []Tunnel) *Metrics {
	m := &Metrics{
		tunnels: tunnels, seen: map[kind]Refusals{},
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "raven_proxy_streams", Help: "Streams that are open now, by front end.",
		}, []string{"front"}),
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raven_proxy_streams_total", Help: "Streams that reached their node, by front end.",
		}, []string{"front"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raven_proxy_bytes_total", Help: "Bytes carried, by front end and direction: up is towards the node.",
		}, []string{"front", "direction"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raven_proxy_refused_total", Help: "Connections and requests that were refused, by front end and reason.",
		}, []string{"front", "reason"}),
		dialFails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raven_proxy_dial_errors_total", Help: "Attempts of this edge to connect to an exposed gateway that failed, by reason.",
		}, []string{"reason"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raven_proxy_tunnels_lost_total",
			Help: "Reverse tunnels that this proxy accepted and lost: closed by the other side, or silent, where that vanished.",
		}, []string{"how"}),
		count: prometheus.NewDesc("raven_proxy_tunnels", "Reverse tunnels that this proxy accepted, by the gateway at their other end.",
			[]string{"gateway"}, nil),
		rtt: prometheus.NewDesc("raven_proxy_tunnel_rtt_seconds", "Round trip of the last ping, the longest of a gateway's tunnels.",
			[]string{"gateway"}, nil),
	}
	for _, f := range fronts {
		m.streams.WithLabelValues(f)
		m.opened.WithLabelValues(f)
		m.bytes.WithLabelValues(f, "up")
		m.bytes.WithLabelValues(f, "down")
	}
	for _, how := range []Loss{LostClosed, LostSilent} {
		m.lost.WithLabelValues(string(how))
	}
	return m
}

// Opened counts a stream that reached its node; Closed ends it.
func (m *Metrics) Opened(front string) {
	m.opened.WithLabelValues(front).Inc()
	m.streams.WithLabelValues(front).Inc()
}

// Closed ends what Opened began.
func (m *Metrics) Closed(front string) { m.streams.WithLabelValues(front).Dec() }

// Counters of bytes of a front end; the copying itself adds to them.
func (m *Metrics) Counters(front string) (up, down prometheus.Counter) {
	return m.bytes.WithLabelValues(front, "up"), m.bytes.WithLabelValues(front, "down")
}

// Refused counts a refusal.
func (m *Metrics) Refused(front string, reason refusal.Reason) {
	reason = refusal.Known(string(reason))
	m.refused.WithLabelValues(front, string(reason)).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	k := kind{front, reason}
	m.seen[k] = Refusals{Front: front, Reason: reason, Count: m.seen[k].Count + 1, Last: time.Now()}
}

// Refusals lists what was refused since the start, by front end and reason.
func (m *Metrics) Refusals() []Refusals {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.seen), func(a, b Refusals) int {
		return cmp.Or(cmp.Compare(a.Front, b.Front), cmp.Compare(a.Reason, b.Reason))
	})
}

// RefusedCounter is the counter that Refused adds to.
func (m *Metrics) RefusedCounter(front string, reason refusal.Reason) prometheus.Counter {
	return m.refused.WithLabelValues(front, string(reason))
}

// DialFailed counts a failed attempt to connect a tunnel.
func (m *Metrics) DialFailed(reason refusal.Reason) {
	m.dialFails.WithLabelValues(string(refusal.Known(string(reason)))).Inc()
}

// TunnelLost counts a tunnel that ended without anybody's wish.
func (m *Metrics) TunnelLost(how Loss) { m.LostCounter(how).Inc() }

// LostCounter is the counter that TunnelLost adds to.
func (m *Metrics) LostCounter(how Loss) prometheus.Counter {
	return m.lost.WithLabelValues(string(how))
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
	ch <- m.count
	ch <- m.rtt
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
	if m.tunnels == nil {
		return
	}
	count, rtt := map[string]int{}, map[string]float64{}
	for _, t := range m.tunnels() {
		count[t.Gateway]++
		rtt[t.Gateway] = max(rtt[t.Gateway], t.RTT)
	}
	for gw, n := range count {
		ch <- prometheus.MustNewConstMetric(m.count, prometheus.GaugeValue, float64(n), gw)
		ch <- prometheus.MustNewConstMetric(m.rtt, prometheus.GaugeValue, rtt[gw], gw)
	}
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.streams, m.opened, m.bytes, m.refused, m.dialFails, m.lost}
}

var _ prometheus.Collector = (*Metrics)(nil)
