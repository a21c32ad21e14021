package lab_test

import (
	"os"
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestSwitchingRunningRegionsToAnotherDriverAndBack(t *testing.T) {
	if os.Getenv("RAVEN_TEST_IPSEC") == "" {
		t.Skip("needs strongSwan: run make test-lab-ipsec")
	}
	for _, acceleration := range []string{"auto", "off"} {
		t.Run(acceleration, func(t *testing.T) {
			ctx, l := start(t, "switch-"+acceleration, lab.Tutorial())
			if err := l.ConfigureDriver("ipsec"); err != nil {
				t.Fatal(err)
			}
			startAgents(ctx, t, l, lab.AgentOptions{Acceleration: acceleration, Driver: "ipsec", Configured: true})
			run(t, l, checks.SwitchDrivers)
		})
	}
}
