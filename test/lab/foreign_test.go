package lab_test

import (
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestAPodWhoseVethOthersUseIsLeftToTheKernel(t *testing.T) {
	l := withAgents(t, "foreign", lab.Tutorial(), lab.AgentOptions{Acceleration: "auto"})
	run(t, l, checks.ForeignUse)
}
