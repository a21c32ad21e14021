package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// scrapePatience is how long a scrape waits for the kernel and for the agent's loop.
const scrapePatience = 3 * time.Second

// collector makes metrics from the latest view and the kernel's counters at each scrape.
type collector struct{ sources Sources }

func newCollector(s Sources) *collector { return &collector{sources: s} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	synced      = desc("raven_source_synced", "1 once the source has delivered every kind of object; 0: the last run's snapshot counts.")
	snapshotAge = desc("raven_snapshot_age_seconds", "Time since the snapshot on disk changed last; absent without one.")
	lastPass    = desc("raven_last_pass_timestamp_seconds", "When the last whole apply pass ended; 0: none did.")
	held        = desc("raven_input_held", "1 while the input is not applied since it looks like an empty answer.")

	inputObjects = desc("raven_input_objects", "Objects that the source delivered.", "kind")
	planRole     = desc("raven_plan_role", "1 for the node's role in its region.", "region", "role")
	planPrefixes = desc("raven_plan_prefixes", "Planned prefixes.", "scope")
	planNextHops = desc("raven_plan_nexthops", "Planned next hops.", "kind")
	planPeers    = desc("raven_plan_peers", "Planned tunnel peers.")
	planMembers  = desc("raven_plan_members", "Other nodes of the region.")
	planConflict = desc("raven_plan_conflicts", "Prefixes left out since they mean two things.")
	problem      = desc("raven_problem", "1 for each input that is left out and each thing that does not work, as far as this node names it.", "object", "reason")
	elsewhere    = desc("raven_cluster_problems", "Problems of the cluster that other nodes name, the gateways concerned above all.")

	accelerated = desc("raven_datapath_accelerated", "1 where eBPF programs forward, 0 on the kernel baseline and on nodes without L3.")
	datapath    = desc("raven_datapath_mode", "1 for the node's datapath mode.", "mode")
	localPods   = desc("raven_local_pods", "Local pods of an accelerated node; raven_problem names those that are not.", "accelerated")

	peerState     = desc("raven_tunnel_peer_state", "1 for the state of each tunnel.", "peer", "region", "state")
	peerHandshake = desc("raven_tunnel_peer_handshake_age_seconds", "Time since the last handshake; absent before the first.", "peer", "region")
	peerRx        = desc("raven_tunnel_peer_receive_bytes_total", "Bytes received from the peer.", "peer", "region")
	peerTx        = desc("raven_tunnel_peer_transmit_bytes_total", "Bytes sent to the peer.", "peer", "region")
	peerRTT       = desc("raven_tunnel_peer_rtt_seconds", "Last round trip through the tunnel, by ICMP echo to the peer's node address; absent before the first answer.", "peer", "region")
	peerLoss      = desc("raven_tunnel_peer_loss_ratio", "Share of the last 20 echo requests through the tunnel without an answer, 0 to 1.", "peer", "region")
	mtuBytes      = desc("raven_mtu_bytes", "Largest IP packet: of the underlay as measured, of raven0 and the tunnel as planned.", "device")

	packets     = desc("raven_packets_total", "Packets that a BPF program let go of, by verdict (redirect, pass, drop) and reason.", "program", "verdict", "reason")
	bytes       = desc("raven_bytes_total", "Bytes of those packets.", "program", "verdict", "reason")
	filterDrops = desc("raven_filter_dropped_packets_total", "Packets that the nft table raven dropped.", "reason")
	scrapeError = desc("raven_scrape_error", "1 where a part of this scrape could not be read.", "part")
)

// Describe implements prometheus.Collector: nothing, since the label values come and go.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapePatience)
	defer cancel()
	v := c.sources.View(ctx)
	collectState(out, v)
	if age := c.sources.SnapshotAge; age != nil && age() >= 0 {
		gauge(out, snapshotAge, age())
	}
	collectPlan(out, v.Plan)
	collectPeers(out, v)
	collectMTU(out, v)
	c.collectQuality(out, v)
	c.collectKernel(ctx, out)
}

func collectState(out chan<- prometheus.Metric, v *view.View) {
	gauge(out, synced, truth(v.Synced))
	gauge(out, held, truth(v.Held != ""))
	passed := 0.0
	if !v.Passed.IsZero() {
		passed = float64(v.Passed.UnixMilli()) / 1000
	}
	gauge(out, lastPass, passed)
	gauge(out, inputObjects, float64(v.Gateways), "Gateway")
	gauge(out, inputObjects, float64(v.Nodes), "Node")
	gauge(out, inputObjects, float64(v.Endpoints), "TunnelEndpoint")
	gauge(out, accelerated, truth(v.Datapath == v1beta1.DatapathAccelerated))
	if v.Datapath != "" {
		gauge(out, datapath, 1, string(v.Datapath))
	}
	if v.Datapath == v1beta1.DatapathAccelerated {
		gauge(out, localPods, float64(v.PodsAccelerated), "true")
		gauge(out, localPods, float64(v.PodsNotAccelerated), "false")
	}
	gauge(out, elsewhere, float64(v.Elsewhere))
	type key struct{ object, reason string }
	seen := map[key]bool{}
	for _, p := range v.Problems {
		if k := (key{p.Object, p.Reason}); !seen[k] {
			seen[k] = true
			gauge(out, problem, 1, p.Object, p.Reason)
		}
	}
}

func collectPlan(out chan<- prometheus.Metric, plan *topology.Plan) {
	if plan == nil {
		return
	}
	gauge(out, planRole, 1, plan.Region, string(plan.Role))
	scopes := map[topology.Scope]int{topology.ScopeRemote: 0, topology.ScopeInRegion: 0}
	for _, p := range plan.Prefixes {
		scopes[p.Scope]++
	}
	for scope, n := range scopes {
		gauge(out, planPrefixes, float64(n), string(scope))
	}
	kinds := map[topology.Kind]int{
		topology.KindOverlay: 0, topology.KindDirect: 0, topology.KindTunnel: 0, topology.KindUnreachable: 0,
	}
	for _, h := range plan.NextHops {
		kinds[h.Kind]++
	}
	for kind, n := range kinds {
		gauge(out, planNextHops, float64(n), string(kind))
	}
	peers, members := 0, 0
	if plan.Tunnel != nil {
		peers = len(plan.Tunnel.Peers)
	}
	if plan.Overlay != nil {
		members = len(plan.Overlay.Members)
	}
	gauge(out, planPeers, float64(peers))
	gauge(out, planMembers, float64(members))
	gauge(out, planConflict, float64(len(plan.Conflicts)))
}

// regionsOf maps the tunnel's peers to their regions.
func regionsOf(v *view.View) map[string]string {
	regions := map[string]string{}
	if v.Plan != nil && v.Plan.Tunnel != nil {
		for _, p := range v.Plan.Tunnel.Peers {
			regions[p.Node] = p.Region
		}
	}
	return regions
}

func collectMTU(out chan<- prometheus.Metric, v *view.View) {
	if v.UnderlayMTU > 0 {
		gauge(out, mtuBytes, float64(v.UnderlayMTU), "underlay")
	}
	if v.Plan != nil && v.Plan.Overlay != nil {
		gauge(out, mtuBytes, float64(v.Plan.Overlay.MTU), "overlay")
	}
	if v.Plan != nil && v.Plan.Tunnel != nil {
		gauge(out, mtuBytes, float64(v.Plan.Tunnel.MTU), "tunnel")
	}
}

func (c *collector) collectQuality(out chan<- prometheus.Metric, v *view.View) {
	if c.sources.Quality == nil {
		return
	}
	regions := regionsOf(v)
	for node, q := range c.sources.Quality() {
		if q.RTT >= 0 {
			gauge(out, peerRTT, q.RTT, node, regions[node])
		}
		gauge(out, peerLoss, q.Loss, node, regions[node])
	}
}

func collectPeers(out chan<- prometheus.Metric, v *view.View) {
	regions := regionsOf(v)
	seen := map[string]bool{}
	for _, p := range v.Peers {
		if seen[p.Node] {
			continue
		}
		seen[p.Node] = true
		region := regions[p.Node]
		for _, state := range []tunnel.State{tunnel.StateUp, tunnel.StateConnecting, tunnel.StateDown} {
			gauge(out, peerState, truth(p.State == state), p.Node, region, string(state))
		}
		if !p.LastHandshake.IsZero() {
			gauge(out, peerHandshake, max(0, time.Since(p.LastHandshake).Seconds()), p.Node, region)
		}
		counter(out, peerRx, float64(p.RxBytes), p.Node, region)
		counter(out, peerTx, float64(p.TxBytes), p.Node, region)
	}
}

// collectKernel reads the counters that the kernel keeps.
func (c *collector) collectKernel(ctx context.Context, out chan<- prometheus.Metric) {
	if c.sources.Programs != nil {
		counters, err := c.sources.Programs(ctx)
		gauge(out, scrapeError, truth(err != nil), "programs")
		for _, p := range counters {
			counter(out, packets, float64(p.Packets), p.Program, p.Verdict, p.Reason)
			counter(out, bytes, float64(p.Bytes), p.Program, p.Verdict, p.Reason)
		}
	}
	if c.sources.FilterDrops != nil {
		drops, err := c.sources.FilterDrops(ctx)
		gauge(out, scrapeError, truth(err != nil), "filter")
		for reason, n := range drops {
			counter(out, filterDrops, float64(n), reason)
		}
	}
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func counter(out chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
