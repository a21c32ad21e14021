package bench

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// Names of the paths. Those of the original, and those of Overlay beside Services, carry the number of kube-proxy's rules:
// original-0, original-1000, overlay-10000.
const (
	// Baseline is Raven's path by the kernel's tables alone, VXLAN inside the region.
	Baseline = "baseline"
	// Overlay is the same, accelerated by eBPF.
	Overlay = "overlay"
	// Direct is accelerated, and has no encapsulation inside the region.
	Direct = "direct"
	// Original is OpenYurt Raven's path on nodes whose kube-proxy has no Services.
	Original = "original-0"
	// Gateway is Overlay from gateway to gateway: what the hops inside the regions add is the difference.
	Gateway = "gateway"
	// Bare is the tunnel between two gateways where nothing of Raven's but the tunnel is left.
	Bare = "bare"
)

const originalPrefix, overlayPrefix = "original-", "overlay-"

// Path is one way to forward, in a lab of its own that idles while the others are measured.
type Path struct {
	Name  string
	Title string
	// Forwarding and Accelerated are of Raven's agents on all nodes. Where Forwarding is empty, agents make the gateways'
	// tunnel and nothing else.
	Forwarding  string
	Accelerated bool
	// Original says that OpenYurt Raven's path lies on top of the tunnel.
	Original bool
	// Rules of kube-proxy for Services, beside its fixed ones.
	Rules int
	// Gateways measures from gateway to gateway, not from pod to pod.
	Gateways bool
}

// Paths are all that are measured, with the original's for each number of rules, and the accelerated one for the largest.
func Paths(rules ...int) []Path {
	paths := []Path{
		{Name: Baseline, Title: "Raven, kernel only", Forwarding: "overlay"},
		{Name: Overlay, Title: "Raven, accelerated", Forwarding: "overlay", Accelerated: true},
		{Name: Direct, Title: "Raven, accelerated, `direct`", Forwarding: "direct", Accelerated: true},
	}
	for _, n := range rules {
		p := Path{Name: fmt.Sprint(originalPrefix, n), Title: "OpenYurt Raven", Original: true, Rules: n}
		if n > 0 {
			p.Title = fmt.Sprintf("OpenYurt Raven, %s kube-proxy rules", thousands(n))
		}
		paths = append(paths, p)
	}
	if n := slices.Max(append([]int{0}, rules...)); n > 0 {
		paths = append(paths, Path{Name: fmt.Sprint(overlayPrefix, n), Title: fmt.Sprintf("Raven, accelerated, %s kube-proxy rules", thousands(n)),
			Forwarding: "overlay", Accelerated: true, Rules: n})
	}
	return append(paths,
		Path{Name: Gateway, Title: "Raven, gateway to gateway", Forwarding: "overlay", Accelerated: true, Gateways: true},
		Path{Name: Bare, Title: "bare tunnel", Gateways: true})
}

// Select keeps the named paths; none named: all.
func Select(paths []Path, names []string) ([]Path, error) {
	if len(names) == 0 {
		return paths, nil
	}
	var out []Path
	for _, name := range names {
		i := slices.IndexFunc(paths, func(p Path) bool { return p.Name == name })
		if i < 0 {
			var known []string
			for _, p := range paths {
				known = append(known, p.Name)
			}
			return nil, fmt.Errorf("there is no path %q: there are %s", name, strings.Join(known, ", "))
		}
		out = append(out, paths[i])
	}
	return out, nil
}

// sameLab tells whether two paths differ in nothing but their ends.
func (p Path) sameLab(o Path) bool {
	return p.Forwarding == o.Forwarding && p.Accelerated == o.Accelerated && p.Original == o.Original && p.Rules == o.Rules
}

func (p Path) agents(tunnel string) lab.AgentOptions {
	o := lab.AgentOptions{Driver: tunnel, Acceleration: "off", Forwarding: p.Forwarding}
	if p.Accelerated {
		o.Acceleration = "auto"
	}
	return o
}

// thousands writes a count with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
