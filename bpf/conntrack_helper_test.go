package bpf

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/netns"
)

// Attributes of ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h) for a message that the conntrack tool
// cannot send: an entry with a helper.
const (
	ctaTupleOrig, ctaTupleReply, ctaStatus, ctaProtoinfo, ctaHelp, ctaTimeout = 1, 2, 3, 4, 5, 7
	ctaTupleIP, ctaTupleProto                                                 = 1, 2
	ctaIPv4Src, ctaIPv4Dst                                                    = 1, 2
	ctaProtoNum, ctaProtoSport, ctaProtoDport                                 = 1, 2, 3
	ctaProtoinfoTCP, ctaProtoinfoTCPState                                     = 1, 1
	ctaHelpName                                                               = 1

	statusSeenReplyAssured = 2 | 4 | 8 // and IPS_CONFIRMED, which may not change
)

func TestAFlowWithAConntrackHelperStaysOnTheStack(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t, false, false)
		p := packet{src: localPod, dst: remotePod, dstMAC: podGateway, proto: tcp, sport: 40000, dport: 21}
		insertWithHelper(t, p, "ftp")
		reason := FromPodRavenReasonRAVEN_PASS_CT_SPECIAL
		if action, _ := n.run("raven_from_pod", "pod0", p.frame(t), 0); action != actUnspec {
			t.Errorf("action %d, want %d", action, actUnspec)
		}
		if packets, _ := n.counter("raven_from_pod", reason); packets != 1 {
			t.Errorf("counted %v, want reason %d", n.counted("raven_from_pod"), reason)
		}
		reached[reason] = true
	})
}

func insertWithHelper(t *testing.T, p packet, helper string) {
	t.Helper()
	be16 := func(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
	be32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	tuple := func(kind int, src, dst netip.Addr, sport, dport uint16) *nl.RtAttr {
		a := nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil)
		ip := a.AddRtAttr(ctaTupleIP|unix.NLA_F_NESTED, nil)
		ip.AddRtAttr(ctaIPv4Src, src.AsSlice())
		ip.AddRtAttr(ctaIPv4Dst, dst.AsSlice())
		proto := a.AddRtAttr(ctaTupleProto|unix.NLA_F_NESTED, nil)
		proto.AddRtAttr(ctaProtoNum, []byte{unix.IPPROTO_TCP})
		proto.AddRtAttr(ctaProtoSport, be16(sport))
		proto.AddRtAttr(ctaProtoDport, be16(dport))
		return a
	}
	const ctnetlinkNew = unix.NFNL_SUBSYS_CTNETLINK << 8 // IPCTNL_MSG_CT_NEW is 0
	req := nl.NewNetlinkRequest(ctnetlinkNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	req.AddData(tuple(ctaTupleOrig, p.src, p.dst, p.sport, p.dport))
	req.AddData(tuple(ctaTupleReply, p.dst, p.src, p.dport, p.sport))
	req.AddData(nl.NewRtAttr(ctaStatus, be32(statusSeenReplyAssured)))
	req.AddData(nl.NewRtAttr(ctaTimeout, be32(100)))
	info := nl.NewRtAttr(ctaProtoinfo|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(ctaProtoinfoTCP|unix.NLA_F_NESTED, nil).AddRtAttr(ctaProtoinfoTCPState, []byte{3})
	req.AddData(info)
	help := nl.NewRtAttr(ctaHelp|unix.NLA_F_NESTED, nil)
	help.AddRtAttr(ctaHelpName, nl.ZeroTerminated(helper))
	req.AddData(help)
	if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil {
		t.Fatalf("insert a conntrack entry with helper %s: %v", helper, err)
	}
}
