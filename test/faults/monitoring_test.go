package faults

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/test/lab"
)

var metricName = regexp.MustCompile(`raven_\w+`)

// expressions lists the queries of the dashboard and of the alert rules.
func expressions(t *testing.T) []string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	content, err := os.ReadFile("../../manifests/monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct{ Alert, Expr string }
			}
		}
	}
	if content, err = os.ReadFile("../../manifests/monitoring/alerts.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(content, &map[string]any{}); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, &rules); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			out = append(out, target.Expr)
		}
	}
	for _, g := range rules.Spec.Groups {
		for _, r := range g.Rules {
			out = append(out, r.Expr)
		}
	}
	if len(out) < 30 {
		t.Fatalf("only %d expressions were found", len(out))
	}
	return out
}

// watched names the metrics in the expressions, sorted.
func watched(t *testing.T) []string {
	var names []string
	for _, e := range expressions(t) {
		for _, name := range metricName.FindAllString(e, -1) {
			names = append(names, strings.TrimSuffix(name, "_bucket"))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// moving are metrics that traffic must move.
var moving = []string{
	"raven_packets_total", "raven_bytes_total", "raven_tunnel_peer_receive_bytes_total", "raven_tunnel_peer_transmit_bytes_total",
	"raven_filter_dropped_packets_total",
}

// awaitWatched waits until every watched metric is on some page of the lab, and those of traffic have moved.
func (w *world) awaitWatched(t *testing.T) {
	t.Helper()
	names := watched(t)
	before := w.sums(t, moving)
	if err := w.lab.ServeEcho(w.ctx); err != nil {
		t.Fatal(err)
	}
	ask := netip.MustParseAddr("10.244.32.2")
	if _, err := w.lab.Host("east-2/a").Ask(w.ctx, "tcp", ask); err != nil {
		t.Fatal(err)
	}
	// VXLAN from a stranger, for the drops.
	w.sh(t, "east-nat", "echo x > /dev/udp/172.16.1.12/4472 2>/dev/null || bash -c 'echo x > /dev/udp/172.16.1.12/4472'")
	err := lab.Await(w.ctx, "all metrics", func(ctx context.Context) error {
		now := w.sums(t, names)
		var missing []string
		for _, name := range names {
			if _, there := now[name]; !there && name != "raven_problem" { // nothing is wrong here
				missing = append(missing, name)
			}
		}
		for _, name := range moving {
			if now[name] <= before[name] {
				missing = append(missing, name+" does not move")
			}
		}
		if len(missing) > 0 {
			return missingError(missing)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d metrics are watched", len(names))
}

type missingError []string

func (m missingError) Error() string { return "not on any page: " + strings.Join(m, ", ") }

// sums adds up each metric over all nodes; one that is nowhere has no entry.
func (w *world) sums(t *testing.T, names []string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, node := range w.lab.Nodes() {
		m, err := w.lab.Metrics(w.ctx, node)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range m {
			name := strings.TrimSuffix(s.Name, "_bucket")
			if slices.Contains(names, name) {
				out[name] += s.Value
			}
		}
	}
	return out
}
