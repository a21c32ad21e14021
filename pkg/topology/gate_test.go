package topology

import (
	"testing"

	"github.com/ravencni/raven/bench/gate"
)

// TestGateOfAllocations holds the planner to the number of allocations that a Plan takes: unlike time, it is the same on any
// machine, and it grows with whatever is done for each node or prefix.
func TestGateOfAllocations(t *testing.T) {
	s := large(100, 10).State
	for name, self := range map[string]string{"an exposed gateway": "gw-0000-0", "a member behind NAT": "gw-0001-1"} {
		n := testing.AllocsPerRun(3, func() { Compile(s, self, Local{UnderlayMTU: 1500}) })
		gate.Check(t, "allocations of a plan for "+name+" of 100 regions of 10 nodes", n, 0.1)
	}
}
