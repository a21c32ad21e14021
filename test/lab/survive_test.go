package lab_test

import (
	"fmt"
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestANodeWhoseKernelRefusesBPFSaysSoAndWorks(t *testing.T) {
	l := withAgents(t, "refused", lab.Tutorial(), lab.AgentOptions{Acceleration: "auto", Extra: []string{"--force-bpf-failure"}})
	run(t, l, checks.SaysBaseline)
	everyonesTraffic(t, l)
}

func TestARebootedNodeStartsFromItsSnapshot(t *testing.T) {
	for _, acceleration := range []string{"auto", "off"} {
		t.Run(acceleration, func(t *testing.T) {
			l := withAgents(t, "snapshot-"+acceleration, lab.Tutorial(), lab.AgentOptions{Acceleration: acceleration})
			run(t, l, checks.SnapshotStart)
		})
	}
}

func TestXDPDropsFloodsAndStrangers(t *testing.T) {
	l := withAgents(t, "xdp", lab.Tutorial(), lab.AgentOptions{Acceleration: "auto", Extra: []string{
		"--xdp", fmt.Sprintf("--handshakes-per-second=%d", checks.FloodLimit),
	}})
	run(t, l, checks.StrangersAtXDP, checks.HandshakeFlood)
}
