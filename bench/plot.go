package bench

import (
	"fmt"
	"html"
	"strings"
)

// Sizes of a plot in pixels.
const (
	plotWidth, panelGap    = 900, 34
	labelWidth, valueWidth = 250, 190
	barHeight, barGap      = 15, 5
)

// colours of the paths: Raven's own ones stand out.
func colour(p Path) string {
	switch {
	case p.Accelerated && p.Forwarding == "overlay" && !p.Gateways:
		return "#2563a8"
	case p.Name == Direct:
		return "#0f8a6a"
	case p.Name == Baseline:
		return "#8fb3d9"
	case p.Original:
		return "#c98a3d"
	}
	return "#9a9a9a"
}

// Plot draws the paths of a tunnel as SVG: a panel of bars for each metric, from zero, with the median's length and a line
// from the lowest to the highest round.
func (r Result) Plot(tunnel string) string {
	t := r.Tunnels[tunnel]
	paths := PathsOf(t)
	var body strings.Builder
	y := 75
	for _, m := range Metrics {
		if !measured(t, m.Key) {
			continue
		}
		better := "more is better"
		if m.Less {
			better = "less is better"
		}
		fmt.Fprintf(&body, "<text x=\"10\" y=\"%d\" class=\"metric\">%s <tspan class=\"hint\">%s</tspan></text>\n", y, html.EscapeString(m.Title), better)
		y += 10
		most := 0.0
		for _, p := range paths {
			most = max(most, t.Paths[p.Name][m.Key].Median)
		}
		for _, p := range paths {
			s, ok := t.Paths[p.Name][m.Key]
			if !ok {
				continue
			}
			bar(&body, y, p, m, s, most)
			y += barHeight + barGap
		}
		y += panelGap
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<style>.metric{font-weight:bold}.hint{font-weight:normal;fill:#777}</style>
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="10" y="22" font-size="16" font-weight="bold">Pod to pod across two regions, tunnel: %s</text>
<text x="10" y="39" fill="#555">%s</text>
<text x="10" y="54" fill="#555">Medians of %d round(s); lines from the lowest to the highest.</text>
%s</svg>
`, plotWidth, y-panelGap+10, html.EscapeString(tunnelTitles[tunnel]), html.EscapeString(r.circumstances()), t.Rounds, body.String())
}

func bar(b *strings.Builder, y int, p Path, m Metric, s Spread, most float64) {
	room := float64(plotWidth - labelWidth - valueWidth)
	// A line of an outlier ends at the panel's edge.
	at := func(v float64) float64 { return labelWidth + min(room+40, room*v/most) }
	middle := float64(y) + barHeight/2.0
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", labelWidth-8, y+barHeight-3, html.EscapeString(strings.ReplaceAll(p.Title, "`", "")))
	fmt.Fprintf(b, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", labelWidth, y, at(s.Median)-labelWidth, barHeight, colour(p))
	fmt.Fprintf(b, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#222\"/>\n", at(s.Low), at(s.High), middle, middle)
	fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", max(at(s.Median), at(s.High))+6, y+barHeight-3, m.format(s.Median))
}
