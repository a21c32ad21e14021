package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ravencni/raven/bench/l7"
)

// Schema of Result's JSON form, which docs/design/bench.md describes. A change that readers would stumble over raises it.
const Schema = 1

// Result is what a run measured, with all raw samples. What was not measured is absent, never zero.
type Result struct {
	Schema   int       `json:"schema"`
	Measured time.Time `json:"measured"`
	// Version is what `git describe` says of the sources.
	Version string `json:"version"`
	// Quick says that the run was a short one: its figures are worth less.
	Quick  bool   `json:"quick"`
	Kernel string `json:"kernel"`
	CPUs   int    `json:"cpus"`
	// Seconds that the run took.
	Seconds float64                 `json:"seconds"`
	Tunnels map[string]TunnelResult `json:"tunnels,omitempty"`
	Proxy   *ProxyResult            `json:"proxy,omitempty"`
	Planner *PlannerResult          `json:"planner,omitempty"`
	// Programs, Verifier, CNI and ControlPlane are the results of other measurements, as they stood in the results' folder.
	Programs     json.RawMessage `json:"programs,omitempty"`
	Verifier     json.RawMessage `json:"verifier,omitempty"`
	CNI          json.RawMessage `json:"cni,omitempty"`
	ControlPlane json.RawMessage `json:"controlplane,omitempty"`
	// Ratios and Figures are those that aims are set for.
	Ratios  map[string]float64 `json:"ratios"`
	Figures map[string]float64 `json:"figures"`
	// Failures name what could not be measured, and why.
	Failures []string `json:"failures,omitempty"`
	Samples  []Sample `json:"samples"`
}

// TunnelResult is what was measured over one kind of tunnel.
type TunnelResult struct {
	Rounds      int     `json:"rounds"`
	EachSeconds float64 `json:"each_seconds"`
	// Paths are the spreads by path and metric.
	Paths map[string]map[string]Spread `json:"paths"`
	// OverOriginal and OverBaseline are the ratios of each path, by metric: see Over.
	OverOriginal map[string]map[string]float64 `json:"over_original"`
	OverBaseline map[string]map[string]float64 `json:"over_baseline"`
}

// Summarize computes a tunnel's result from its samples.
func Summarize(samples []Sample, o Options) TunnelResult {
	r := TunnelResult{Rounds: Rounds(samples, o.Tunnel), EachSeconds: max(1, o.Each.Seconds()), Paths: Spreads(samples, o.Tunnel),
		OverOriginal: map[string]map[string]float64{}, OverBaseline: map[string]map[string]float64{}}
	for path := range r.Paths {
		for other, to := range map[string]map[string]map[string]float64{Original: r.OverOriginal, Baseline: r.OverBaseline} {
			if ratios := Over(samples, o.Tunnel, path, other); path != other && len(ratios) > 0 {
				to[path] = ratios
			}
		}
	}
	return r
}

// The results of other measurements that a run takes in, in the results' folder: make bench-controlplane, make
// test-kernels, make bench-cni and the BPF tests write them.
const (
	ControlPlaneFile = "controlplane.json"
	VerifierFile     = "verifier.json"
	CNIFile          = "cni.json"
	ProgramsFile     = "programs.json"
	// LatestFile is the run's own.
	LatestFile = "latest.json"
)

// Merge takes in the results of other measurements that lie in the folder.
func (r *Result) Merge(folder string) error {
	for file, to := range map[string]*json.RawMessage{
		ControlPlaneFile: &r.ControlPlane, VerifierFile: &r.Verifier, CNIFile: &r.CNI, ProgramsFile: &r.Programs,
	} {
		text, err := os.ReadFile(filepath.Join(folder, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("take in the results of another measurement: %w", err)
		}
		if !json.Valid(text) {
			return fmt.Errorf("%s is no JSON: measure it again", file)
		}
		*to = text
	}
	return nil
}

// ratio of the aims: a path's metric over another's, over a kind of tunnel.
type ratio struct{ name, tunnel, path, other, metric string }

var ratios = []ratio{
	{"rtt_plain", "plain", Overlay, Original, RTT50},
	{"tcp_plain", "plain", Overlay, Original, TCP},
	{"udp64_plain", "plain", Overlay, Original, UDP64},
	{"cpu_per_mpkt_plain", "plain", Overlay, Original, CPUPerMpkt},
	{"tcp_wireguard", "wireguard", Overlay, Original, TCP},
	{"udp64_wireguard", "wireguard", Overlay, Original, UDP64},
	{"member_over_gateway_tcp", "wireguard", Overlay, Gateway, TCP},
	{"rtt_plain_direct", "plain", Direct, Original, RTT50},
	{"tcp_plain_direct", "plain", Direct, Original, TCP},
	{"udp64_plain_direct", "plain", Direct, Original, UDP64},
	{"cpu_per_mpkt_plain_direct", "plain", Direct, Original, CPUPerMpkt},
	{"member_over_gateway_tcp_plain", "plain", Overlay, Gateway, TCP},
	{"tcp_ipsec", "ipsec", Overlay, Original, TCP},
	{"udp64_ipsec", "ipsec", Overlay, Original, UDP64},
	{"rtt_wireguard", "wireguard", Overlay, Original, RTT50},
	{"rtt_ipsec", "ipsec", Overlay, Original, RTT50},
}

// Conclude computes the ratios and figures that aims are set for.
func (r *Result) Conclude() error {
	r.Ratios, r.Figures = map[string]float64{}, map[string]float64{}
	for _, q := range ratios {
		if v, ok := Over(r.Samples, q.tunnel, q.path, q.other)[q.metric]; ok {
			r.Ratios[q.name] = v
		}
	}
	if p := r.Proxy; p != nil {
		for to, from := range map[string]struct {
			in    map[string]float64
			key   string
			place map[string]float64
		}{
			"proxy_over_haproxy_throughput":     {p.OverHAProxy[l7.HTTP], l7.Throughput, r.Ratios},
			"proxy_over_haproxy_throughput_tls": {p.OverHAProxy[l7.TLS], l7.Throughput, r.Ratios},
			"proxy_added_p50_us":                {p.AddedP50[l7.HTTP], l7.Raven, r.Figures},
			"proxy_added_p50_us_tls":            {p.AddedP50[l7.TLS], l7.Raven, r.Figures},
			"haproxy_added_p50_us":              {p.AddedP50[l7.HTTP], l7.HAProxy, r.Figures},
			"haproxy_added_p50_us_tls":          {p.AddedP50[l7.TLS], l7.HAProxy, r.Figures},
		} {
			if v, ok := from.in[from.key]; ok {
				from.place[to] = v
			}
		}
	}
	if r.Planner != nil {
		r.Figures["planner_10k_nodes_ms"] = r.Planner.Milliseconds
	}
	var cni struct {
		Added *float64 `json:"added_p50_ms"`
	}
	var control struct {
		FirstSync *float64 `json:"first_sync_seconds"`
		Nodes     int      `json:"nodes"`
	}
	for text, to := range map[*json.RawMessage]any{&r.CNI: &cni, &r.ControlPlane: &control} {
		if len(*text) == 0 {
			continue
		}
		if err := json.Unmarshal(*text, to); err != nil {
			return fmt.Errorf("read the result of another measurement: %w", err)
		}
	}
	if cni.Added != nil {
		r.Figures["cni_add_p50_ms"] = *cni.Added
	}
	if control.FirstSync != nil && control.Nodes == 10_000 {
		r.Figures["controller_10k_sync_s"] = *control.FirstSync
	}
	return nil
}

// Read reads a result that Write wrote.
func Read(file string) (Result, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Result{}, fmt.Errorf("read a benchmark's result: %w", err)
	}
	var r Result
	if err := json.Unmarshal(text, &r); err != nil {
		return Result{}, fmt.Errorf("read the benchmark's result in %s: %w", file, err)
	}
	if r.Schema != Schema {
		return Result{}, fmt.Errorf("%s has schema %d, this program knows %d: run make bench", file, r.Schema, Schema)
	}
	return r, nil
}

// Write writes the result.
func (r Result) Write(file string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encode a benchmark's result: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("make the folder of the benchmark's results: %w", err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write a benchmark's result: %w", err)
	}
	return nil
}
