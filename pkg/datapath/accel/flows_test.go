package accel

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/pods/podtest"
	"github.com/ravencni/raven/test/netns"
)

// inNetworkOrder is a port as the programs store it.
func inNetworkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

func TestFlowsAreReadAsTheProgramsWriteThem(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		if got, err := ReadFlows(t.Context(), datapath.PinRoot); err != nil || got != nil {
			t.Fatalf("before anything is pinned: %v, %v", got, err)
		}
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, Options{})
		n.apply(t, a)
		var now unix.Timespec
		must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now))
		four, six := netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00::2")
		must(t, a.maps[mapFlows].Put(
			flowKey{Saddr: addressOf(four), Daddr: addressOf(netip.MustParseAddr("10.244.2.9")), Sport: inNetworkOrder(40000), Dport: inNetworkOrder(443), Protocol: unix.IPPROTO_TCP},
			flow{Verdict: bpf.FromPodRavenReasonRAVEN_REDIRECT_POD, CheckedNs: uint64(now.Nano())}))
		must(t, a.maps[mapFlows].Put(
			flowKey{Saddr: addressOf(six), Daddr: addressOf(netip.MustParseAddr("fd00::9")), Sport: inNetworkOrder(53), Dport: inNetworkOrder(5353), Protocol: unix.IPPROTO_UDP},
			flow{Verdict: bpf.FromPodRavenReasonRAVEN_PASS_NAT}))
		got, err := ReadFlows(t.Context(), datapath.PinRoot)
		if err != nil || len(got) != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		slices.SortFunc(got, func(a, b Flow) int { return a.Source.Addr().Compare(b.Source.Addr()) })
		tcp, udp := got[0], got[1]
		if tcp.Protocol != "TCP" || tcp.Source.String() != "10.244.1.2:40000" || tcp.Destination.String() != "10.244.2.9:443" || !tcp.Accelerated || tcp.Reason != "" {
			t.Errorf("%+v", tcp)
		}
		if udp.Protocol != "UDP" || udp.Source.String() != "[fd00::2]:53" || udp.Destination.String() != "[fd00::9]:5353" || udp.Accelerated || udp.Reason != "nat" {
			t.Errorf("%+v", udp)
		}
		if tcp.Age >= udp.Age {
			t.Errorf("of the flow that was looked at just now %v have passed, of the other one %v", tcp.Age, udp.Age)
		}
	})
}
