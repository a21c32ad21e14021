package bpf

import (
	"errors"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/test/netns"
)

func flowKey(p packet) FlowKey {
	return FlowKey{Saddr: addr(p.src), Daddr: addr(p.dst), Sport: p.sport>>8 | p.sport<<8, Dport: p.dport>>8 | p.dport<<8,
		Protocol: uint8(p.proto)}
}

// timeout is the remaining lifetime in seconds that conntrack gives to the flow.
func (n *node) timeout(p packet) int {
	n.t.Helper()
	out, err := exec.CommandContext(n.t.Context(), "conntrack", "-L", "-p", p.proto.String(), "-s", p.src.String()).Output()
	if err != nil {
		n.t.Fatalf("list conntrack: %v", err)
	}
	m := regexp.MustCompile(`(?m)^\w+\s+\d+\s+(\d+)`).FindSubmatch(out)
	if m == nil {
		n.t.Fatalf("no conntrack entry in %q", out)
	}
	seconds, err := strconv.Atoi(string(m[1]))
	must(n.t, err)
	return seconds
}

func TestAVerdictIsKeptAndItsConntrackEntryRefreshedOnlyUpwardsToItsStatesTimeout(t *testing.T) {
	for _, c := range []struct {
		name          string
		packet        packet
		status        string
		sysctlSeconds func(*NodeConfig)
		atLeast       int
		atMost        int
	}{
		{name: "TCP to the established timeout", packet: packet{proto: tcp}, status: "SEEN_REPLY,ASSURED", atLeast: 431990, atMost: 432000},
		{name: "UDP stream to the stream timeout", packet: packet{proto: udp}, status: "SEEN_REPLY,ASSURED", atLeast: 118, atMost: 120},
		{name: "never downwards", packet: packet{proto: udp}, status: "SEEN_REPLY", atLeast: 98, atMost: 100},
		{name: "never where somebody fixed it", packet: packet{proto: udp}, status: "SEEN_REPLY,ASSURED,FIXED_TIMEOUT", atLeast: 98, atMost: 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				n := newNode(t, false, false)
				p := c.packet
				p.src, p.dst, p.dstMAC, p.sport, p.dport = localPod, remotePod, podGateway, 40000, 80
				insertConntrack(n, p, c.status) // with a timeout of 100 s
				n.run("raven_from_pod", "pod0", p.frame(t), 0)
				var flow Flow
				if err := n.maps["raven_flows"].Lookup(flowKey(p), &flow); err != nil {
					t.Fatalf("the verdict was not kept: %v", err)
				}
				if flow.Verdict != FromPodRavenReasonRAVEN_REDIRECT_POD {
					t.Errorf("verdict %d, want accelerate", flow.Verdict)
				}
				if got := n.timeout(p); got < c.atLeast || got > c.atMost {
					t.Errorf("conntrack keeps the flow for %d s, want %d to %d", got, c.atLeast, c.atMost)
				}
			})
		})
	}
}

func TestSYNFINAndRSTForgetBothDirectionsOfAFlow(t *testing.T) {
	for _, flag := range []string{"SYN", "FIN", "RST"} {
		t.Run(flag, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				n := newNode(t, false, false)
				out := packet{src: localPod, dst: remotePod, dstMAC: podGateway, proto: tcp, sport: 40000, dport: 80}
				in := packet{src: remotePod, dst: localPod, dstMAC: ownMAC, proto: tcp, sport: 80, dport: 40000}
				established(n, out)
				n.run("raven_from_pod", "pod0", out.frame(t), 0)
				n.run("raven_from_overlay", "raven0", in.frame(t), 0)
				var flow Flow
				must(t, n.maps["raven_flows"].Lookup(flowKey(out), &flow))
				must(t, n.maps["raven_flows"].Lookup(flowKey(in), &flow))
				out.syn, out.fin, out.rst = flag == "SYN", flag == "FIN", flag == "RST"
				n.run("raven_from_pod", "pod0", out.frame(t), 0)
				for _, p := range []packet{out, in} {
					if err := n.maps["raven_flows"].Lookup(flowKey(p), &flow); !errors.Is(err, ebpf.ErrKeyNotExist) {
						t.Errorf("%s left the flow %v -> %v behind (%v)", flag, p.src, p.dst, err)
					}
				}
			})
		})
	}
}

func TestADeletedConntrackEntryEndsAccelerationAtTheNextCheck(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t, false, false)
		p := packet{src: localPod, dst: remotePod, dstMAC: podGateway, proto: tcp, sport: 40000, dport: 80}
		established(n, p)
		if action, _ := n.run("raven_from_pod", "pod0", p.frame(t), 0); action != actRedirect {
			t.Fatalf("action %d, want a redirect", action)
		}
		n.conntrack("-D", "-s", p.src.String())
		if action, _ := n.run("raven_from_pod", "pod0", p.frame(t), 0); action != actRedirect {
			t.Errorf("action %d within the time that a verdict stands, want a redirect", action)
		}
		// Make the verdict old instead of waiting two seconds.
		n.put("raven_flows", flowKey(p), Flow{CheckedNs: 0, Verdict: FromPodRavenReasonRAVEN_REDIRECT_POD})
		if action, _ := n.run("raven_from_pod", "pod0", p.frame(t), 0); action != actUnspec {
			t.Errorf("action %d after the check, want the stack", action)
		}
		var flow Flow
		if err := n.maps["raven_flows"].Lookup(flowKey(p), &flow); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("the verdict is still there (%v)", err)
		}
	})
}

func TestAMemberLooksUpSourceAndDestinationOfAKnownFlowNoMore(t *testing.T) {
	in := packet{src: remotePod, dst: localPod, dstMAC: ownMAC, proto: tcp, sport: 80, dport: 40000}
	for _, c := range []struct {
		name    string
		gateway bool
		fin     bool
		change  func(*node, *Flow)
		action  int
	}{
		{name: "by the same device", action: actRedirect},
		{name: "by another device", change: func(n *node, f *Flow) { f.Ifindex = uint32(n.index["nic0"]) }, action: actShot},
		{name: "asked for two seconds ago", change: func(_ *node, f *Flow) { f.CheckedNs -= 2e9 }, action: actShot},
		{name: "not to be accelerated", change: func(_ *node, f *Flow) { f.Verdict = FromPodRavenReasonRAVEN_PASS_NAT }, action: actShot},
		{name: "that ends", fin: true, action: actShot},
		{name: "on a gateway", gateway: true, action: actShot},
	} {
		t.Run(c.name, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				n := newNode(t, false, false)
				establishedReply(n, in)
				if action, _ := n.run("raven_from_overlay", "raven0", in.frame(t), 0); action != actRedirect {
					t.Fatalf("action %d, want a redirect", action)
				}
				var flow Flow
				must(t, n.maps["raven_flows"].Lookup(flowKey(in), &flow))
				if c.change != nil {
					c.change(n, &flow)
					n.put("raven_flows", flowKey(in), flow)
				}
				if c.gateway {
					n.configure(func(c *NodeConfig) { c.Flags |= FlagGateway })
				}
				// From now on whoever looks the source up finds a stranger.
				must(t, n.maps["raven_fib4"].Delete(Fib4Key{Prefixlen: 24, Addr: [4]uint8{10, 244, 9, 0}}))
				p := in
				p.fin = c.fin
				if action, _ := n.run("raven_from_overlay", "raven0", p.frame(t), 0); action != c.action {
					t.Errorf("action %d, want %d; counted: %v", action, c.action, n.counted("raven_from_overlay"))
				}
			})
		})
	}
}
