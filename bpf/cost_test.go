package bpf

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/test/netns"
)

// costCase is a packet on a way that many packets take.
type costCase struct {
	name, program, device string
	gateway               bool
	packet                packet
	prepare               func(*node, packet)
}

func costCases() []costCase {
	out := packet{src: localPod, dst: remotePod, dstMAC: podGateway, proto: udp, sport: 40000, dport: 80, ttl: 255}
	in := packet{src: remotePod, dst: localPod, dstMAC: ownMAC, proto: udp, sport: 80, dport: 40000, ttl: 255}
	transit := packet{src: memberPod, dst: remotePod, dstMAC: ownMAC, proto: udp, sport: 1, dport: 2, ttl: 255}
	fromTunnel := packet{src: remotePod, dst: memberPod, dstMAC: ownMAC, proto: udp, sport: 1, dport: 2, ttl: 255}
	foreign := packet{src: localPod, dst: strangerPod, dstMAC: podGateway, proto: udp, sport: 1, dport: 2, ttl: 255}
	return []costCase{
		{"pod to another region, established", "raven_from_pod", "pod0", false, out, established},
		{"pod to nowhere of Raven's", "raven_from_pod", "pod0", false, foreign, nil},
		{"overlay to a pod, established", "raven_from_overlay", "raven0", false, in, establishedReply},
		{"overlay into the tunnel", "raven_from_overlay", "raven0", true, transit, nil},
		{"tunnel to the overlay", "raven_from_tunnel", "tun0", true, fromTunnel, nil},
		{"underlay: not Raven's", "raven_from_underlay", "nic0", false, foreign, nil},
	}
}

// programsFile is the environment variable that names a file for the costs, as JSON (make bench).
const programsFile = "RAVEN_BENCH_PROGRAMS"

// programCost is what a packet was measured to cost. docs/design/bench.md describes it.
type programCost struct {
	Program string  `json:"program"`
	Case    string  `json:"case"`
	Median  float64 `json:"ns_per_packet"`
	// OverReference is the ratio to the reference program's cost in the same run.
	OverReference float64 `json:"over_reference"`
	Instructions  int     `json:"instructions"`
}

// TestCostOfEachProgramPerPacket reports what a packet costs each program and holds nobody to it: machines differ, and a
// test run repeats one packet with warm caches.
func TestCostOfEachProgramPerPacket(t *testing.T) {
	var all []programCost
	for _, c := range costCases() {
		netns.Run(t, func(t *testing.T) {
			median, ratio := c.ready(t).measure(t)
			t.Logf("%-20s %-36s %4d ns per packet, %.2f of the reference", c.program, c.name, median.Nanoseconds(), ratio)
			all = append(all, programCost{c.program, c.name, float64(median.Nanoseconds()), ratio, instructionsOf(t, c.program)})
		})
	}
	if file := os.Getenv(programsFile); file != "" {
		text, err := json.MarshalIndent(all, "", "  ")
		must(t, err)
		must(t, os.WriteFile(file, append(text, '\n'), 0o644))
	}
}

// measuring is a case whose program, maps and packet are ready.
type measuring struct {
	costCase
	node      *node
	reference *ebpf.Program
	frame     []byte
}

// ready loads the programs. It must be called in a namespace made by netns.Run, once.
func (c costCase) ready(t *testing.T) measuring {
	t.Helper()
	n := newNode(t, c.gateway, true)
	if c.prepare != nil {
		c.prepare(n, c.packet)
	}
	return measuring{costCase: c, node: n, reference: newReference(t), frame: c.packet.frame(t)}
}

// measure runs the program and the reference in turn, and returns the median cost of a packet, and the median ratio of the
// cost to that of the reference just after it: a processor's speed changes, but seldom in between.
func (m measuring) measure(t *testing.T) (median time.Duration, ratio float64) {
	t.Helper()
	const repeat, calls = 250, 200
	var costs []time.Duration
	var ratios []float64
	for range calls {
		opts := &ebpf.RunOptions{Data: m.frame, DataOut: make([]byte, len(m.frame)+256), Repeat: repeat,
			Context: &skb{Ifindex: uint32(m.node.index[m.device])}}
		_, d, err := runTimed(m.node.programs[m.program], opts)
		must(t, err)
		costs = append(costs, d)
		_, reference, err := runTimed(m.reference, opts)
		must(t, err)
		ratios = append(ratios, float64(d)/float64(reference))
	}
	slices.Sort(costs)
	slices.Sort(ratios)
	return costs[calls/2], ratios[calls/2]
}

// runTimed is Program.Run with the mean duration of one repetition, its share of the system call included.
func runTimed(p *ebpf.Program, opts *ebpf.RunOptions) (uint32, time.Duration, error) {
	start := time.Now()
	ret, err := p.Run(opts)
	return ret, time.Since(start) / time.Duration(opts.Repeat), err
}
