package lab_test

import (
	"fmt"
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestANodeWhoseKernelRefusesBPFSaysSoAndWorksAlsoAfterAReboot(t *testing.T) {
	l := withAgents(t, "refused", lab.Tutorial(), lab.AgentOptions{Acceleration: "auto", Extra: []string{lab.RefuseBPF}})
	run(t, l, checks.SaysBaseline)
	everyonesTraffic(t, l)
	run(t, l, everywhere()...)
	run(t, l, checks.SnapshotStart)
}

func TestXDPDropsFloodsAndStrangersAlsoAfterAReboot(t *testing.T) {
	l := withAgents(t, "xdp", lab.Tutorial(), lab.AgentOptions{Acceleration: "auto", Extra: []string{
		"--xdp", fmt.Sprintf("--handshakes-per-second=%d", checks.FloodLimit),
	}})
	run(t, l, checks.StrangersAtXDP, checks.HandshakeFlood, checks.SnapshotStart)
}

func TestAKernelWithoutTCXIsAcceleratedByClsact(t *testing.T) {
	l := withAgents(t, "clsact", lab.Tutorial(), lab.AgentOptions{Acceleration: "auto", Extra: []string{"--force-clsact"}})
	run(t, l, checks.AttachmentsClsact, checks.RedirectPodIPv6)
	everyonesTraffic(t, l)
}
