package lab_test

import (
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestANodeWhoseKernelRefusesBPFSaysSoAndWorksAlsoAfterAReboot(t *testing.T) {
	l := withAgents(t, "refused", lab.Tutorial(), lab.AgentOptions{Acceleration: "auto", Extra: checks.SaysBaseline.Flags})
	run(t, l, checks.SaysBaseline)
	everyonesTraffic(t, l)
	run(t, l, everywhere()...)
	run(t, l, checks.SnapshotStart)
}

func TestXDPDropsFloodsAndStrangersAlsoAfterAReboot(t *testing.T) {
	l := withAgents(t, "xdp", lab.Tutorial(), lab.AgentOptions{Acceleration: "auto", Extra: checks.HandshakeFlood.Flags})
	run(t, l, checks.StrangersAtXDP, checks.HandshakeFlood, checks.SnapshotStart)
}

func TestAKernelWithoutTCXIsAcceleratedByClsact(t *testing.T) {
	l := withAgents(t, "clsact", lab.Tutorial(), lab.AgentOptions{Acceleration: "auto", Extra: checks.AttachmentsClsact.Flags})
	run(t, l, checks.AttachmentsClsact, checks.RedirectPodIPv6)
	everyonesTraffic(t, l)
}
