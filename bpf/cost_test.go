package bpf

import (
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/test/netns"
)

// TestCostOfEachProgramPerPacket prints what the main paths cost, without the redirect itself, which a test run does not
// carry out. Every run of a packet takes one from its TTL, so each call repeats as often as the TTL lasts.
func TestCostOfEachProgramPerPacket(t *testing.T) {
	out := packet{src: localPod, dst: remotePod, dstMAC: podGateway, proto: udp, sport: 40000, dport: 80, ttl: 255}
	in := packet{src: remotePod, dst: localPod, dstMAC: ownMAC, proto: udp, sport: 80, dport: 40000, ttl: 255}
	transit := packet{src: memberPod, dst: remotePod, dstMAC: ownMAC, proto: udp, sport: 1, dport: 2, ttl: 255}
	fromTunnel := packet{src: remotePod, dst: memberPod, dstMAC: ownMAC, proto: udp, sport: 1, dport: 2, ttl: 255}
	foreign := packet{src: localPod, dst: strangerPod, dstMAC: podGateway, proto: udp, sport: 1, dport: 2, ttl: 255}
	for _, c := range []struct {
		name, program, device string
		gateway               bool
		packet                packet
		prepare               func(*node, packet)
	}{
		{"pod to another region, established", "raven_from_pod", "pod0", false, out, established},
		{"pod to nowhere of Raven's", "raven_from_pod", "pod0", false, foreign, nil},
		{"overlay to a pod, established", "raven_from_overlay", "raven0", false, in, establishedReply},
		{"overlay into the tunnel", "raven_from_overlay", "raven0", true, transit, nil},
		{"tunnel to the overlay", "raven_from_tunnel", "tun0", true, fromTunnel, nil},
		{"underlay: not Raven's", "raven_from_underlay", "nic0", false, foreign, nil},
	} {
		netns.Run(t, func(t *testing.T) {
			n := newNode(t, c.gateway, true)
			if c.prepare != nil {
				c.prepare(n, c.packet)
			}
			frame := c.packet.frame(t)
			const repeat, calls = 250, 200
			var costs []time.Duration
			for range calls {
				opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: repeat,
					Context: &skb{Ifindex: uint32(n.index[c.device])}}
				_, d, err := runTimed(n.programs[c.program], opts)
				must(t, err)
				costs = append(costs, d)
			}
			slices.Sort(costs)
			t.Logf("%-20s %-36s %4d ns per packet (median of %d runs of %d)",
				c.program, c.name, costs[calls/2].Nanoseconds(), calls, repeat)
		})
	}
}

// runTimed is Program.Run with the mean duration of one repetition, its share of the system call included.
func runTimed(p *ebpf.Program, opts *ebpf.RunOptions) (uint32, time.Duration, error) {
	start := time.Now()
	ret, err := p.Run(opts)
	return ret, time.Since(start) / time.Duration(opts.Repeat), err
}
