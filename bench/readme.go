package bench

import (
	"fmt"
	"strings"
)

// Marks in README.md, between which its figures stand.
const (
	readmeBegin = "<!-- figures: written by make bench-report from bench/results/latest.json -->"
	readmeEnd   = "<!-- end of figures -->"
)

// ReadmeFigures is the part of README.md that says what was measured: a table of the paths that users choose between.
func (r Result) ReadmeFigures() string {
	paths := []struct{ name, title string }{
		{Original, "OpenYurt Raven"}, {Baseline, "Raven, kernel only"}, {Overlay, "Raven, accelerated"}, {Direct, "… with `direct`"},
	}
	var b strings.Builder
	b.WriteString("| pod to pod, two regions |")
	for _, p := range paths {
		fmt.Fprintf(&b, " %s |", p.title)
	}
	b.WriteString(" accelerated : OpenYurt's |\n|---|" + strings.Repeat("---:|", len(paths)+1) + "\n")
	for _, tunnel := range Tunnels {
		t, ok := r.Tunnels[tunnel]
		if !ok {
			continue
		}
		for _, m := range Metrics {
			if m.Key == RTT99 || m.Key == UDPFull || m.Key == CPUPerGB || tunnel != "plain" && m.Key != RTT50 && m.Key != TCP && m.Key != UDP64 {
				continue
			}
			fmt.Fprintf(&b, "| %s: %s |", tunnelTitles[tunnel], m.Title)
			for _, p := range paths {
				if s, ok := t.Paths[p.name][m.Key]; ok {
					fmt.Fprintf(&b, " %s |", m.format(s.Median))
				} else {
					b.WriteString(" |")
				}
			}
			if v, ok := t.OverOriginal[Overlay][m.Key]; ok {
				fmt.Fprintf(&b, " %.2f", v)
			}
			b.WriteString(" |\n")
		}
	}
	b.WriteString(r.otherFigures())
	fmt.Fprintf(&b, "\n%s\n", r.circumstances())
	return b.String()
}

// otherFigures are single ones, beside the paths: those that were measured.
func (r Result) otherFigures() string {
	var b strings.Builder
	for _, f := range []struct {
		of    map[string]float64
		name  string
		words string
	}{
		{r.Ratios, "member_over_gateway_tcp", "TCP from member to member over WireGuard, as a part of gateway to gateway: %.2f"},
		{r.Ratios, "proxy_over_haproxy_throughput", "L7 proxy, one HTTP stream's throughput over two haproxies': %.2f"},
		{r.Ratios, "proxy_over_haproxy_throughput_tls", "L7 proxy, the same with TLS passed through: %.2f"},
		{r.Figures, "proxy_added_p50_us", "L7 proxy, what an HTTP request takes longer than by a direct connection: %.0f µs"},
		{r.Figures, "haproxy_added_p50_us", "two haproxies, the same: %.0f µs"},
		{r.Figures, "cni_add_p50_ms", "CNI plugin, what a pod's ADD takes longer: %.1f ms"},
		{r.Figures, "planner_10k_nodes_ms", "planner, a Plan among 1,000 gateways and 10,000 nodes: %.0f ms"},
		{r.Figures, "controller_10k_sync_s", "controller, first sync of the same cluster: %.0f s"},
	} {
		if v, ok := f.of[f.name]; ok {
			fmt.Fprintf(&b, "- "+f.words+"\n", v)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "\n" + b.String()
}

// PutFigures replaces what stands between the marks of a README.
func (r Result) PutFigures(readme string) (string, error) {
	before, rest, ok := strings.Cut(readme, readmeBegin+"\n")
	_, after, okEnd := strings.Cut(rest, readmeEnd)
	if !ok || !okEnd {
		return "", fmt.Errorf("the README lacks the lines %q and %q, between which its figures stand", readmeBegin, readmeEnd)
	}
	return before + readmeBegin + "\n" + r.ReadmeFigures() + readmeEnd + after, nil
}
