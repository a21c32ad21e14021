package bpf

import (
	"testing"

	"github.com/ravencni/raven/test/netns"
)

// remembers expects the last packet that was dropped for the reason to be p, come in by the device; the index 0 is any.
func (n *node) remembers(reason Reason, p packet, device int) {
	n.t.Helper()
	var perCPU []DroppedRing
	must(n.t, n.maps["raven_dropped"].Lookup(reason, &perCPU))
	for _, ring := range perCPU {
		if ring.Count == 0 {
			continue
		}
		d := ring.Last[(ring.Count-1)%uint64(len(ring.Last))]
		if d.Flow == flowKey(p) && d.AtNs != 0 && (device == 0 || d.Ifindex == uint32(device)) {
			return
		}
		n.t.Errorf("remembered for reason %d is %+v, want %+v by device %d", reason, d, flowKey(p), device)
		return
	}
	n.t.Errorf("no packet is remembered for reason %d", reason)
}

func TestTheLastPacketsDroppedForAReasonAreKept(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t, false, false)
		p := packet{src: remotePod, dst: remotePod, dstMAC: podGateway, proto: udp, sport: 1, dport: 2}
		const sent = 11
		for i := range sent {
			p.sport = uint16(1 + i)
			n.run("raven_from_pod", "pod0", p.frame(t), 0)
			n.remembers(FromPodRavenReasonRAVEN_DROP_SPOOFED_SOURCE, p, n.index["pod0"])
		}
		var perCPU []DroppedRing
		must(t, n.maps["raven_dropped"].Lookup(FromPodRavenReasonRAVEN_DROP_SPOOFED_SOURCE, &perCPU))
		var count uint64
		for _, ring := range perCPU {
			count += ring.Count
		}
		if count != sent {
			t.Errorf("%d packets were dropped, want %d", count, sent)
		}
	})
}
