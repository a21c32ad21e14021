package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// tunnelTitles are the kinds of tunnel for people.
var tunnelTitles = map[string]string{
	"plain": "no encryption (VXLAN)", "wireguard": "WireGuard in user space", "ipsec": "IPsec in user space",
}

// aims are what the ratios should reach; of the others none is set.
var aims = map[string]struct {
	less  bool
	value float64
}{
	"rtt_plain": {true, 0.45}, "tcp_plain": {false, 1.45}, "udp64_plain": {false, 1.6}, "cpu_per_mpkt_plain": {true, 0.6},
	"rtt_plain_direct": {true, 0.35}, "tcp_plain_direct": {false, 1.5}, "udp64_plain_direct": {false, 1.9}, "cpu_per_mpkt_plain_direct": {true, 0.5},
	"tcp_wireguard": {false, 1}, "member_over_gateway_tcp": {false, 0.95}, "proxy_over_haproxy_throughput": {false, 0.8},
}

// Markdown is the whole result as tables.
func (r Result) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmark\n\n%s\n", r.circumstances())
	if len(r.Failures) > 0 {
		b.WriteString("\nNot measured:\n\n")
		for _, f := range r.Failures {
			first, _, _ := strings.Cut(f, "\n")
			fmt.Fprintf(&b, "- %s\n", first)
		}
	}
	for _, tunnel := range Tunnels {
		t, ok := r.Tunnels[tunnel]
		if !ok {
			continue
		}
		fmt.Fprintf(&b, "\n## Tunnel: %s\n\nMedians of %d round(s) (lowest to highest), each measurement %g s.\n\n| path |", tunnelTitles[tunnel], t.Rounds, t.EachSeconds)
		metrics := slices.DeleteFunc(slices.Clone(Metrics), func(m Metric) bool { return !measured(t, m.Key) })
		for _, m := range metrics {
			fmt.Fprintf(&b, " %s |", m.Title)
		}
		b.WriteString("\n|---|" + strings.Repeat("---:|", len(metrics)) + "\n")
		for _, p := range PathsOf(t) {
			fmt.Fprintf(&b, "| %s |", p.Title)
			for _, m := range metrics {
				s, ok := t.Paths[p.Name][m.Key]
				switch {
				case !ok:
					b.WriteString(" |")
				case t.Rounds == 1:
					fmt.Fprintf(&b, " %s |", m.format(s.Median))
				default:
					fmt.Fprintf(&b, " %s (%s–%s) |", m.format(s.Median), m.format(s.Low), m.format(s.High))
				}
			}
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\n![%s](%s.svg)\n", tunnelTitles[tunnel], tunnel)
	}
	if r.Proxy != nil {
		b.WriteString(r.Proxy.markdown())
	}
	b.WriteString(r.programs())
	b.WriteString(r.conclusions())
	return b.String()
}

func measured(t TunnelResult, key string) bool {
	for _, metrics := range t.Paths {
		if _, ok := metrics[key]; ok {
			return true
		}
	}
	return false
}

// PathsOf are the paths that were measured over a tunnel, in their order.
func PathsOf(t TunnelResult) []Path {
	var rules []int
	for name := range t.Paths {
		var n int
		if _, err := fmt.Sscanf(name, originalPrefix+"%d", &n); err == nil {
			rules = append(rules, n)
		}
	}
	slices.Sort(rules)
	return slices.DeleteFunc(Paths(rules...), func(p Path) bool { return t.Paths[p.Name] == nil })
}

func (r Result) circumstances() string {
	kind := ""
	if r.Quick {
		kind = " A short run: its figures are worth less."
	}
	return fmt.Sprintf("Version %s, %s, Linux %s, %d CPUs.%s", r.Version, r.Measured.Format("2006-01-02"), r.Kernel, r.CPUs, kind)
}

// programs is the table of what packets cost the eBPF programs.
func (r Result) programs() string {
	var all []struct {
		Program      string  `json:"program"`
		Case         string  `json:"case"`
		Nanoseconds  float64 `json:"ns_per_packet"`
		Instructions int     `json:"instructions"`
	}
	if json.Unmarshal(r.Programs, &all) != nil || len(all) == 0 {
		return "" // it was not measured
	}
	var b strings.Builder
	b.WriteString("\n## eBPF programs\n\n| program | packet | ns | instructions |\n|---|---|---:|---:|\n")
	for _, p := range all {
		fmt.Fprintf(&b, "| `%s` | %s | %.0f | %d |\n", p.Program, p.Case, p.Nanoseconds, p.Instructions)
	}
	return b.String()
}

// conclusions are the ratios beside their aims, and the figures.
func (r Result) conclusions() string {
	var b strings.Builder
	b.WriteString("\n## Ratios and figures\n\n| ratio | measured | aim |\n|---|---:|---:|\n")
	for _, name := range slices.Sorted(maps.Keys(r.Ratios)) {
		aim := ""
		if a, ok := aims[name]; ok {
			aim = fmt.Sprintf("at least %g", a.value)
			if a.less {
				aim = fmt.Sprintf("at most %g", a.value)
			}
		}
		fmt.Fprintf(&b, "| `%s` | %.2f | %s |\n", name, r.Ratios[name], aim)
	}
	b.WriteString("\n| figure | measured |\n|---|---:|\n")
	for _, name := range slices.Sorted(maps.Keys(r.Figures)) {
		fmt.Fprintf(&b, "| `%s` | %.4g |\n", name, r.Figures[name])
	}
	return b.String()
}
