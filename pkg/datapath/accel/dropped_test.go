package accel

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/test/netns"
)

func TestDroppedPacketsAreReadOldestFirstWithTheirAddresses(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		a := n.applier(t, Options{})
		if list, err := ReadDropped(t.Context(), datapath.PinRoot); err != nil || len(list) != 0 {
			t.Errorf("before the first pass: %v %v", list, err)
		}
		n.apply(t, a)
		var now unix.Timespec
		must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
		ago := func(d time.Duration) uint64 { return uint64(now.Nano() - int64(d)) }
		key := flowKey{Saddr: addressOf(netip.MustParseAddr("192.0.2.1")), Daddr: addressOf(netip.MustParseAddr("fd00::1")), Protocol: 17,
			Sport: 0x0100, Dport: 0x7811} // 1 and 4472 in network byte order
		put := func(reason bpf.Reason, last ...uint64) {
			perCPU := make([]droppedRing, ebpf.MustPossibleCPU())
			for i, at := range last {
				perCPU[0].Last[i].AtNs, perCPU[0].Last[i].Flow, perCPU[0].Last[i].Ifindex = at, key, 7
			}
			must(t, a.maps[mapDropped].Put(uint32(reason), perCPU))
		}
		put(bpf.FromPodRavenReasonRAVEN_DROP_VXLAN_STRANGER, ago(time.Second), ago(3*time.Second))
		put(bpf.FromPodRavenReasonRAVEN_DROP_SPOOFED_SOURCE, ago(2*time.Second))
		list, err := ReadDropped(t.Context(), datapath.PinRoot)
		must(t, err)
		if len(list) != 3 || list[0].Reason != "vxlan_stranger" || list[1].Reason != "spoofed_source" {
			t.Fatalf("got %+v", list)
		}
		d := list[2]
		want := Dropped{At: d.At, Reason: "vxlan_stranger", Protocol: 17, Device: 7,
			Source: netip.MustParseAddrPort("192.0.2.1:1"), Destination: netip.MustParseAddrPort("[fd00::1]:4472")}
		if age := time.Since(d.At); d != want || age < time.Second || age > 2*time.Second {
			t.Errorf("got %+v, %s ago; want %+v a second ago", d, age, want)
		}
	})
}
