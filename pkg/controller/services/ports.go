package services

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Ports of the proxy on its node that the internal Service's ports lead to; docs/contract.md names them.
const (
	// httpTarget takes every HTTP port, since the Host header carries the port.
	httpTarget = 10264
	// httpsTarget takes the first HTTPS port, and each further one has one of its own from firstFurtherTarget on, since SNI
	// carries no port.
	httpsTarget                           = 10263
	firstFurtherTarget, lastFurtherTarget = 10280, 10299
)

// Exposed tells whether other regions dial this Gateway's proxy.
func Exposed(gw *v1beta1.Gateway) bool {
	c := gw.Spec.ProxyConfig
	return gw.Spec.ExposeType != v1beta1.ExposeNone && (c == nil || c.Replicas == nil || *c.Replicas > 0)
}

// Configured lists the HTTP and HTTPS ports of the exposed Gateways, in order of Gateways and lists, each once. A port
// in both lists counts as HTTPS: a Service has a port once, and TLS says itself what it is.
func Configured(gateways []*v1beta1.Gateway) (http, https []int) {
	for _, gw := range gateways {
		if c := gw.Spec.ProxyConfig; Exposed(gw) && c != nil {
			http = parse(http, c.ProxyHTTPPort)
			https = parse(https, c.ProxyHTTPSPort)
		}
	}
	return slices.DeleteFunc(http, func(p int) bool { return slices.Contains(https, p) }), https
}

// parse appends the ports of a comma list that are not there yet; what is no port is left out, as the CRD refuses it.
func parse(out []int, list string) []int {
	for item := range strings.SplitSeq(list, ",") {
		p, err := strconv.Atoi(strings.TrimSpace(item))
		if err == nil && p > 0 && p <= 65535 && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// Targets are the target ports that HTTPS ports have, or had: HTTPS port -> target port.
type Targets map[int]int

// ParseTargets reads what String wrote; what makes no sense is left out.
func ParseTargets(text string) Targets {
	t := Targets{}
	taken := map[int]bool{}
	for item := range strings.SplitSeq(text, ",") {
		port, target, _ := strings.Cut(strings.TrimSpace(item), "=")
		p, err1 := strconv.Atoi(port)
		n, err2 := strconv.Atoi(target)
		if err1 == nil && err2 == nil && isTarget(n) && !taken[n] && p > 0 && p <= 65535 {
			t[p], taken[n] = n, true
		}
	}
	return t
}

func isTarget(n int) bool {
	return n == httpsTarget || n >= firstFurtherTarget && n <= lastFurtherTarget
}

func (t Targets) String() string {
	var items []string
	for _, p := range slices.Sorted(maps.Keys(t)) {
		items = append(items, strconv.Itoa(p)+"="+strconv.Itoa(t[p]))
	}
	return strings.Join(items, ",")
}

// assign returns the targets with one for each of the ports, and the ports for which none is left. A port keeps its
// target for good, also while it is not configured; only where all are taken do such ports lose theirs, the least first.
func (t Targets) assign(ports []int) (Targets, []int) {
	out := Targets{}
	maps.Copy(out, t)
	var retired []int
	for _, p := range slices.Sorted(maps.Keys(t)) {
		if !slices.Contains(ports, p) {
			retired = append(retired, p)
		}
	}
	var without []int
	for _, p := range ports {
		if _, ok := out[p]; ok {
			continue
		}
		free := out.free()
		if free == 0 && len(retired) > 0 {
			free = out[retired[0]]
			delete(out, retired[0])
			retired = retired[1:]
		}
		if free == 0 {
			without = append(without, p)
			continue
		}
		out[p] = free
	}
	return out, without
}

// free is the first target that no port has; 0: none.
func (t Targets) free() int {
	taken := slices.Collect(maps.Values(t))
	if !slices.Contains(taken, httpsTarget) {
		return httpsTarget
	}
	for n := firstFurtherTarget; n <= lastFurtherTarget; n++ {
		if !slices.Contains(taken, n) {
			return n
		}
	}
	return 0
}
