package checks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/ravencni/raven/pkg/tunnel/conformance"
	"github.com/ravencni/raven/test/lab"
)

// leastRedirected is the share of a flow's packets that eBPF must forward at each hop.
const leastRedirected = 0.99

// seconds of the throughput test that the share is taken from. When it ends, what is still on its way meets a closed
// socket: some 80 packets of resets and strays that are the stack's by design, whatever the length of the test. In a
// short one on a busy machine these alone are more than a hundredth.
const redirectSeconds = "10"

// throughput is how iperf3 is called. Where the machine is slow, ten seconds are a thousand packets, of which those that begin
// and end connections are more than a hundredth, and a sender that may have megabytes on their way leaves hundreds for the closed socket.
func throughput() []string {
	if os.Getenv(conformance.SlowVariable) != "" {
		return []string{"-t", "20", "-w", "64K"}
	}
	return []string{"-t", redirectSeconds}
}

// RedirectPod and RedirectNode: after a throughput test, nearly all packets of the flow were redirected by eBPF at every
// hop that can do so; the reasons of the rest are named.
var (
	RedirectPod = Check{
		Name: "redirect-pod",
		Says: "10 s of iperf3 pod -> pod: at least 99 % of the packets redirected by eBPF at every hop",
		Run: func(ctx context.Context, l *lab.Lab) (string, error) {
			return redirected(ctx, l, "hangzhou-2/a", "qingdao-2/a", 4, throughput()...)
		},
	}
	RedirectNode = Check{
		Name: "redirect-node",
		Says: "10 s of iperf3 node -> node: at least 99 % redirected by eBPF at the gateways and the relay",
		Run: func(ctx context.Context, l *lab.Lab) (string, error) {
			return redirected(ctx, l, "hangzhou-2", "qingdao-2", 4, throughput()...)
		},
	}
)

// RedirectPodIPv6 is RedirectPod over IPv6.
var RedirectPodIPv6 = Check{
	Name: "redirect-ipv6",
	Says: "10 s of iperf3 pod -> pod over IPv6: at least 99 % of the packets redirected by eBPF at every hop",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		return redirected(ctx, l, "hangzhou-2/a", "qingdao-2/a", 6, throughput()...)
	},
}

// redirected runs iperf3 and judges each hop.
func redirected(ctx context.Context, l *lab.Lab, from, to string, family int, iperf ...string) (string, error) {
	a, err := findEnd(l, from)
	if err != nil {
		return "", err
	}
	b, err := findEnd(l, to)
	if err != nil {
		return "", err
	}
	path := hops(l, a, b)
	if a.pod == nil { // the node's own packets take its stack, which they come from or go to
		path = path[1:]
	}
	if b.pod == nil {
		path = path[:len(path)-1]
	}
	before, err := metricsOf(ctx, l, path)
	if err != nil {
		return "", err
	}
	flow, err := a.host.Iperf(ctx, b.host, b.addr(family), iperf...)
	if err != nil {
		return "", err
	}
	after, err := metricsOf(ctx, l, path)
	if err != nil {
		return "", err
	}
	evidence := []string{fmt.Sprintf("%.2f Gb/s", flow.BitsPerSecond/1e9)}
	for _, node := range path {
		h := compare(before[node], after[node])
		evidence = append(evidence, fmt.Sprintf("%s %s", node, h))
		if h.share() < leastRedirected {
			err = errors.Join(err, fmt.Errorf("%s redirected too little: %s", node, h))
		}
		// Only what was redirected counts, so the flow's own bytes must be among it.
		if h.bytes < flow.Bytes*leastRedirected {
			err = errors.Join(err, fmt.Errorf("%s redirected %.0f bytes of a flow of %.0f", node, h.bytes, flow.Bytes))
		}
	}
	return strings.Join(evidence, "; "), err
}

func metricsOf(ctx context.Context, l *lab.Lab, nodes []string) (map[string]lab.Metrics, error) {
	all := map[string]lab.Metrics{}
	for _, node := range nodes {
		m, err := l.Metrics(ctx, node)
		if err != nil {
			return nil, err
		}
		all[node] = m
	}
	return all, nil
}

// hopCount is what the programs of one node did between two looks at its counters.
type hopCount struct {
	redirected, all, bytes float64
	rest                   []string
}

func compare(before, after lab.Metrics) hopCount {
	var h hopCount
	for _, s := range after {
		if s.Name != "raven_packets_total" {
			continue
		}
		if r := s.Labels["reason"]; r == "underlay" || r == "decapsulated" {
			continue // on the underlay's device, where no hop is decided yet
		}
		labels := []string{"program", s.Labels["program"], "verdict", s.Labels["verdict"], "reason", s.Labels["reason"]}
		n := s.Value - before.Sum(s.Name, labels...)
		h.all += n
		switch {
		case n == 0:
		case s.Labels["verdict"] == "redirect":
			h.redirected += n
			h.bytes += after.Sum("raven_bytes_total", labels...) - before.Sum("raven_bytes_total", labels...)
		default:
			h.rest = append(h.rest, fmt.Sprintf("%s %s: %.0f", s.Labels["program"], s.Labels["reason"], n))
		}
	}
	slices.Sort(h.rest)
	return h
}

func (h hopCount) share() float64 {
	if h.all == 0 {
		return 0
	}
	return h.redirected / h.all
}

func (h hopCount) String() string {
	s := fmt.Sprintf("%.2f %% of %.0f", 100*h.share(), h.all)
	if len(h.rest) > 0 {
		s += " (rest: " + strings.Join(h.rest, ", ") + ")"
	}
	return s
}
