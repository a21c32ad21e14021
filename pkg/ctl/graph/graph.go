// Package graph draws the regions as one node reaches them.
package graph

import (
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/ravencni/raven/pkg/agent/local"
)

// link is one line of the picture: from a region to another, directly or over a relay.
type link struct {
	from, to, by string
	up           bool
}

// links lists this region's tunnels and what they relay; a member has one line to its gateway's.
func links(r *local.Report) (out []link) {
	for _, p := range r.Peers {
		up := p.State == "up"
		label := p.Node + " " + p.State
		if p.RTT != nil {
			label += fmt.Sprintf(" %.1fms", *p.RTT*1000)
		}
		out = append(out, link{r.Region, p.Region, label, up})
		for _, relayed := range p.Relays {
			out = append(out, link{p.Region, relayed, "relayed by " + p.Node, up})
		}
	}
	if len(r.Peers) > 0 || r.Plan == nil {
		return out
	}
	for _, h := range r.Plan.NextHops {
		if region, ok := strings.CutPrefix(h.ID, "region/"); ok {
			out = append(out, link{r.Region, region, "by gateway " + h.Node, true})
		}
	}
	return out
}

// DOT writes the picture for Graphviz.
func DOT(w io.Writer, r *local.Report) error {
	var b strings.Builder
	b.WriteString("digraph raven {\n  rankdir=LR;\n  node [shape=box];\n")
	fmt.Fprintf(&b, "  %q [style=bold, label=%q];\n", r.Region, r.Region+"\n"+r.Node+" ("+string(r.Role)+")")
	for _, l := range links(r) {
		style := "solid"
		if !l.up {
			style = "dashed, color=red"
		}
		fmt.Fprintf(&b, "  %q -> %q [label=%q, style=%s];\n", l.from, l.to, l.by, style)
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// The SVG's layout in pixels: one column per distance from this region, one row per line.
const (
	column, row, boxWidth, boxHeight, margin = 420, 70, 180, 40, 20
)

// SVG writes the picture without Graphviz.
func SVG(w io.Writer, r *local.Report) error {
	type place struct{ x, y int }
	all := links(r)
	at := map[string]place{r.Region: {margin, margin}}
	rows := map[int]int{}
	for _, l := range all {
		if _, known := at[l.to]; known {
			continue
		}
		x := at[l.from].x + column
		at[l.to] = place{x, margin + rows[x]*row}
		rows[x]++
	}
	width, height := 0, 0
	var b strings.Builder
	for _, l := range all {
		from, to := at[l.from], at[l.to]
		colour := "black"
		if !l.up {
			colour = "red"
		}
		x1, y1, x2, y2 := from.x+boxWidth, from.y+boxHeight/2, to.x, to.y+boxHeight/2
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (x1+x2)/2, (y1+y2)/2-5, html.EscapeString(l.by))
	}
	names := append([]link{{to: r.Region}}, all...)
	drawn := map[string]bool{}
	for _, l := range names {
		if drawn[l.to] {
			continue
		}
		drawn[l.to] = true
		p := at[l.to]
		width, height = max(width, p.x+boxWidth+margin), max(height, p.y+boxHeight+margin)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="white" stroke="black"/>`+"\n", p.x, p.y, boxWidth, boxHeight)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", p.x+boxWidth/2, p.y+boxHeight/2+5, html.EscapeString(l.to))
	}
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n%s</svg>\n",
		width, height, b.String())
	return err
}
