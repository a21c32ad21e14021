package accel

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/pods/podtest"
	"github.com/ravencni/raven/test/netns"
)

func TestBpftoolShowsEveryMapByItsFields(t *testing.T) {
	bpftool, err := exec.LookPath("bpftool")
	if err != nil {
		t.Skip("needs bpftool")
	}
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, Options{})
		n.apply(t, a)
		must(t, a.maps[mapFlows].Put(flowKey{Protocol: 6}, flow{Verdict: 3}))
		must(t, a.maps[mapHandshakes].Put(address{}, handshakes{Count: 1}))

		tree := TreePath(datapath.PinRoot)
		var seen []string
		for name, want := range map[string][]string{
			mapConfig: {
				"flags", "tcp_established_s", "udp_s", "udp_stream_s", "tick_ns", "handshakes_per_second", "tunnel_port", "overlay_port",
				"overlay_vni", "overlay_ifindex", "underlay", "tunnel_vni", "tunnel_ifindex", "tunnel_address",
			},
			mapFib4:       {"prefixlen", "addr", "nexthop", "scope"},
			mapFib6:       {"prefixlen", "addr", "nexthop", "scope"},
			mapNexthops:   {"group", "ifindex", "kind", "flags", "dmac", "smac", "mtu", "pad", "via"},
			mapPods:       {"bytes", "ifindex", "mac", "gw_mac", "mtu", "pad"},
			mapFlows:      {"saddr", "daddr", "sport", "dport", "protocol", "pad", "checked_ns", "verdict", "ifindex"},
			mapMembers:    {"bytes"},
			mapHandshakes: {"bytes", "window_ns", "count", "pad"},
			mapCounters:   {"from_pod", "from_overlay", "from_tunnel", "from_underlay", "xdp_underlay"},
			mapDropped:    {"count", "last"},
		} {
			seen = append(seen, name)
			out, err := exec.CommandContext(t.Context(), bpftool, "-j", "map", "dump", "pinned", filepath.Join(tree, name)).Output()
			if err != nil {
				t.Errorf("%s: %v: %s", name, err, out)
				continue
			}
			var entries []struct {
				Formatted struct {
					Key    json.RawMessage
					Value  json.RawMessage
					Values []struct{ Value json.RawMessage }
				}
			}
			if err := json.Unmarshal(out, &entries); err != nil || len(entries) == 0 {
				t.Errorf("%s: %v: %s", name, err, out)
				continue
			}
			first := entries[0].Formatted
			if len(first.Values) > 0 {
				first.Value = first.Values[0].Value
			}
			got := append(fields(first.Key), fields(first.Value)...)
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(name, diff)
			}
		}
		for name := range a.maps {
			if !slices.Contains(seen, name) {
				t.Errorf("the map %s is not looked at", name)
			}
		}
	})
}

// fields returns the names in a JSON object; a number has none.
func fields(raw json.RawMessage) []string {
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return nil
	}
	var names []string
	for name := range object {
		names = append(names, name)
	}
	return names
}

func TestCountersAreSummedOverCPUsUnderTheNamesOfTheHeader(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		a := n.applier(t, Options{})
		if list, err := a.Counters(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("before the first pass: %v %v", list, err)
		}
		n.apply(t, a)
		perCPU := make([]programCounts, ebpf.MustPossibleCPU())
		for i := range perCPU {
			perCPU[i].FromTunnel.Packets, perCPU[i].FromTunnel.Bytes = 2, 100
		}
		must(t, a.maps[mapCounters].Put(uint32(bpf.FromPodRavenReasonRAVEN_DROP_WRONG_REGION_SOURCE), perCPU))
		list, err := a.Counters(t.Context())
		must(t, err)
		cpus := uint64(len(perCPU))
		want := Counter{FromTunnel, "drop", "wrong_region_source", 2 * cpus, 100 * cpus}
		var found bool
		for _, c := range list {
			if c.Program == want.Program && c.Verdict == want.Verdict && c.Reason == want.Reason {
				found = c == want
			} else if c.Packets != 0 || c.Bytes != 0 {
				t.Errorf("%+v", c)
			}
		}
		if programs := 5; !found || len(list) != programs*int(bpf.FromPodRavenReasonRAVEN_REASON_MAX) {
			t.Errorf("no %+v among %d counters", want, len(list))
		}
	})
}
