package drops

import (
	"cmp"
	"slices"
)

var verdicts = []string{"drop", "pass", "redirect"}

func before(a, b Count) int {
	return cmp.Or(
		cmp.Compare(slices.Index(verdicts, a.Verdict), slices.Index(verdicts, b.Verdict)),
		cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Where, b.Where),
	)
}

// meanings by verdict/reason, after bpf/include/reasons.h and the rules of the nft table raven.
var meanings = map[string]string{
	"redirect/overlay":      "into raven0, to a node of this region",
	"redirect/direct":       "to an on-link node of this region, without VXLAN",
	"redirect/tunnel":       "into the tunnel, to another region",
	"redirect/pod":          "into a local pod",
	"redirect/decapsulated": "out of its VXLAN, to come in by that device",

	"pass/disabled":      "acceleration is switched off",
	"pass/not_ip":        "no IP packet, or not addressed to this host",
	"pass/malformed":     "shorter than its headers say, or a bad checksum",
	"pass/ip_options":    "IP options or extension headers",
	"pass/fragment":      "a fragment has no ports to judge by",
	"pass/no_route":      "the destination is none of Raven's prefixes",
	"pass/local_host":    "for this node itself",
	"pass/unknown_pod":   "no pod known at that address and device",
	"pass/nexthop_down":  "the next hop is down or has no device",
	"pass/ttl":           "TTL used up: the kernel answers",
	"pass/oversize":      "larger than the path: the kernel answers",
	"pass/protocol":      "neither TCP nor UDP, such as ICMP",
	"pass/tcp_control":   "SYN, FIN and RST take the kernel's way",
	"pass/untracked":     "conntrack has no such flow yet",
	"pass/unestablished": "conntrack has not seen both directions yet",
	"pass/nat":           "the flow is translated on this host",
	"pass/ct_special":    "conntrack must see each packet of the flow",
	"pass/write_failed":  "no room for an Ethernet header",
	"pass/underlay":      "on the underlay: not Raven's, or for the kernel",

	"drop/spoofed_source":      "a pod sent with a source that is not this node's",
	"drop/wrong_region_source": "the inner source may not come from that device",
	"drop/vxlan_stranger":      "VXLAN from a host that is no member of the region",
	"drop/handshake_flood":     "too many tunnel handshakes from one source",
	"drop/write_failed":        "a write failed half-way: a bug, please report it",
	"drop/foreign_destination": "out of a tunnel for what no route of Raven's leads to",
	"drop/vxlan_from_pod":      "VXLAN that a pod made",
}

// Meaning explains a reason in a few words; empty where it is not known.
func Meaning(verdict, reason string) string { return meanings[verdict+"/"+reason] }
