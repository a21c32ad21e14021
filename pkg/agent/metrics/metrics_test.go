package metrics_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/ravencni/raven/pkg/agent/metrics"
	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("the scrape answers %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func full() *view.View {
	return &view.View{
		Synced: true, Gateways: 3, Nodes: 6, Endpoints: 5, Passed: time.Unix(1700000000, 0),
		Datapath: v1beta1.DatapathAccelerated,
		Plan: &topology.Plan{
			Region: "gw-a", Role: topology.RoleGateway,
			Overlay:  &topology.Overlay{},
			Tunnel:   &topology.Tunnel{Peers: []topology.Peer{{Node: "b1", Region: "gw-b"}}},
			NextHops: []topology.NextHop{{Kind: topology.KindTunnel}},
			Prefixes: []topology.Prefix{{Scope: topology.ScopeRemote}, {Scope: topology.ScopeRemote}},
		},
		Peers: []tunnel.PeerStatus{
			{Node: "b1", State: tunnel.StateUp, LastHandshake: time.Now().Add(-time.Minute), RxBytes: 7, TxBytes: 8},
			{Node: "b1", State: tunnel.StateDown}, // a driver's mistake must not cost the whole page
		},
		Elsewhere: 12,
		Problems: []topology.Problem{
			{Object: "Node/x", Reason: "MalformedCIDR", Message: "one"}, {Object: "Node/x", Reason: "MalformedCIDR", Message: "two"},
		},
	}
}

func TestThePageShowsWhatTheAgentSees(t *testing.T) {
	m := metrics.New("v1.2.3")
	m.Observe(metrics.Sources{
		View: func(context.Context) *view.View { return full() },
		Programs: func(context.Context) ([]metrics.ProgramCounter, error) {
			return []metrics.ProgramCounter{{Program: "raven_from_pod", Verdict: "pass", Reason: "no_route", Packets: 5, Bytes: 500}}, nil
		},
		FilterDrops: func(context.Context) (map[string]uint64, error) { return map[string]uint64{"spoofed_source": 2}, nil },
		SnapshotAge: func() float64 { return 12 },
	})
	m.Ran("route", 3, nil)
	m.Ran("route", 0, errors.New("x"))
	m.Passed(0.002)
	page := scrape(t, m)
	for _, line := range []string{
		`raven_applier_runs_total{applier="route",result="ok"} 1`,
		`raven_applier_runs_total{applier="route",result="error"} 1`,
		`raven_applier_changes_total{applier="route"} 3`,
		`raven_build_info{version="v1.2.3"} 1`,
		`raven_source_synced 1`,
		`raven_snapshot_age_seconds 12`,
		`raven_plan_prefixes{scope="remote"} 2`,
		`raven_plan_prefixes{scope="in-region"} 0`,
		`raven_plan_peers 1`,
		`raven_plan_nexthops{kind="tunnel"} 1`,
		`raven_plan_role{region="gw-a",role="gateway"} 1`,
		`raven_problem{object="Node/x",reason="MalformedCIDR"} 1`,
		`raven_cluster_problems 12`,
		`raven_datapath_accelerated 1`,
		`raven_tunnel_peer_state{peer="b1",region="gw-b",state="up"} 1`,
		`raven_tunnel_peer_receive_bytes_total{peer="b1",region="gw-b"} 7`,
		`raven_tunnel_peer_transmit_bytes_total{peer="b1",region="gw-b"} 8`,
		`raven_packets_total{program="raven_from_pod",reason="no_route",verdict="pass"} 5`,
		`raven_bytes_total{program="raven_from_pod",reason="no_route",verdict="pass"} 500`,
		`raven_filter_dropped_packets_total{reason="spoofed_source"} 2`,
		`raven_last_pass_timestamp_seconds 1.7e+09`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("the page lacks %s", line)
		}
	}
	if !strings.Contains(page, `raven_tunnel_peer_handshake_age_seconds{peer="b1",region="gw-b"} 60`) {
		t.Errorf("the handshake's age is missing or wrong")
	}
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "raven_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestACounterThatCannotBeReadCostsOnlyItself(t *testing.T) {
	m := metrics.New("v")
	m.Observe(metrics.Sources{
		View:        func(context.Context) *view.View { return &view.View{} },
		Programs:    func(context.Context) ([]metrics.ProgramCounter, error) { return nil, errors.New("no map") },
		FilterDrops: func(context.Context) (map[string]uint64, error) { return map[string]uint64{"x": 1}, nil },
		SnapshotAge: func() float64 { return -1 },
	})
	page := scrape(t, m)
	for _, line := range []string{
		`raven_scrape_error{part="programs"} 1`, `raven_scrape_error{part="filter"} 0`,
		`raven_filter_dropped_packets_total{reason="x"} 1`, `raven_datapath_accelerated 0`, `raven_last_pass_timestamp_seconds 0`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("the page lacks %s", line)
		}
	}
	if strings.Contains(page, "raven_snapshot_age_seconds") {
		t.Error("there is no snapshot, but it has an age")
	}
}
