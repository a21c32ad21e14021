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
	fmt.Fprintf(&b, "\n%s\n", r.circumstances())
	return b.String()
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
