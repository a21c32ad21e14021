package drops

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/ctl/recorded"
	"github.com/ravencni/raven/pkg/datapath/filter"
)

func TestEveryReasonHasAMeaning(t *testing.T) {
	spec, err := bpf.LoadFromPod()
	if err != nil {
		t.Fatal(err)
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName("raven_reason", &enum); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, v := range enum.Values {
		verdict, reason, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(v.Name, "RAVEN_")), "_")
		if v.Name == "RAVEN_REASON_MAX" {
			continue
		}
		known[verdict+"/"+reason] = true
		if Meaning(verdict, reason) == "" {
			t.Errorf("%s has no meaning", v.Name)
		}
	}
	for _, reason := range []string{
		filter.CounterSpoofedSource, filter.CounterWrongRegionSource, filter.CounterForeignDestination,
		filter.CounterVXLANStranger, filter.CounterVXLANFromPod,
	} {
		known["drop/"+reason] = true
		if Meaning("drop", reason) == "" {
			t.Errorf("the counter %s has no meaning", reason)
		}
	}
	for m := range meanings {
		if !known[m] {
			t.Errorf("%s means something and does not exist", m)
		}
	}
}

func TestTwoLooksGiveWhatWasCountedBetweenThem(t *testing.T) {
	earlier := []Count{
		{Verdict: "drop", Reason: "vxlan_stranger", Where: Filter, Packets: 5, Bytes: 500},
		{Verdict: "drop", Reason: "spoofed_source", Where: Filter, Packets: 9, Bytes: 900},
		{Verdict: "pass", Reason: "protocol", Where: "raven_from_pod", Packets: 1, Bytes: 10},
	}
	now := []Count{
		{Verdict: "drop", Reason: "vxlan_stranger", Where: Filter, Packets: 7, Bytes: 700},
		{Verdict: "drop", Reason: "spoofed_source", Where: Filter, Packets: 2, Bytes: 200}, // made anew
		{Verdict: "pass", Reason: "protocol", Where: "raven_from_pod", Packets: 4, Bytes: 40},
	}
	got := Since(earlier, now)
	for i, want := range []uint64{2, 2, 3} {
		if got[i].Packets != want {
			t.Errorf("%s: %d packets, want %d", got[i].Reason, got[i].Packets, want)
		}
	}
	if seen := Seen(got, false); len(seen) != 2 {
		t.Errorf("of drops alone %v are shown", seen)
	}
	if seen := Seen(got, true); len(seen) != 3 {
		t.Errorf("of all %v are shown", seen)
	}
}

func TestTheTableIsAsRecordedAndFits(t *testing.T) {
	counts := []Count{}
	for key, meaning := range meanings {
		verdict, reason, _ := strings.Cut(key, "/")
		counts = append(counts, Count{verdict, reason, "raven_from_underlay", 1 << 32, 1 << 40, meaning})
	}
	slices.SortFunc(counts, before)
	var b bytes.Buffer
	if err := Write(&b, counts); err != nil {
		t.Fatal(err)
	}
	recorded.Compare(t, "testdata/drops.txt", b.Bytes())
}

func TestThePacketsAreAsRecordedAndFit(t *testing.T) {
	at := time.Date(2026, 11, 26, 13, 5, 7, 89e6, time.UTC)
	packets := []Packet{
		{at, "spoofed_source", "veth5e1f00d", "tcp", "192.0.2.9:40000", "10.244.9.2:80"},
		{at.Add(time.Second), "vxlan_stranger", "eth0", "udp", "198.51.100.66:51000", "10.0.0.5:4472"},
		{at.Add(time.Minute), "wrong_region_source", "12 (gone)", "icmpv6", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1111", "fd00:aaaa:bbbb:cccc:dddd:eeee:ffff:1111"},
	}
	var b bytes.Buffer
	if err := WritePackets(&b, packets); err != nil {
		t.Fatal(err)
	}
	recorded.Compare(t, "testdata/packets.txt", b.Bytes())
	counts := []Count{{"drop", "spoofed_source", "raven_from_pod", 3, 180, Meaning("drop", "spoofed_source")}}
	recorded.JSON(t, "testdata/report.json", Report{counts, packets})
	if got := After(packets, at.Add(time.Second)); len(got) != 2 {
		t.Errorf("%d packets after the first, want 2", len(got))
	}
}
