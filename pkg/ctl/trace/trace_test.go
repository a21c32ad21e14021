package trace

import (
	"bytes"
	"testing"

	"github.com/ravencni/raven/pkg/ctl/recorded"
	"github.com/ravencni/raven/pkg/topology"
)

func TestAWayIsAsRecordedAndFits(t *testing.T) {
	member := &Hop{Node: "hangzhou-2", Role: topology.RoleMember, Next: "hangzhou-1"}
	member.say("plan", "10.244.17.0/24 is of region gw-qingdao, by node hangzhou-1 (overlay, MTU 1450)")
	member.say("map", "raven_fib4 has 10.244.17.0/24: next hop 3, raven0, MTU 1450, healthy")
	member.say("program", "raven_from_pod lets it go to the kernel: pass/untracked (conntrack has no such flow yet)")
	member.say("kernel", "table 9027: via 10.0.1.1 dev raven0, as planned")
	gateway := &Hop{Node: "a-gateway-with-a-very-long-name.factories.example.com", Role: topology.RoleGateway}
	gateway.say("plan", "10.244.17.0/24 is of region gw-qingdao, by its gateway qingdao-1 (tunnel, MTU 1405)")
	gateway.stop("map", "raven_fib4 lacks 10.244.17.0/24, which the plan has: see ravenctl doctor on this node")
	if member.Bad() || !gateway.Bad() {
		t.Errorf("bad are %v and %v", member.Bad(), gateway.Bad())
	}
	hops := []*Hop{member, gateway}
	var b bytes.Buffer
	if err := Write(&b, hops); err != nil {
		t.Fatal(err)
	}
	recorded.Compare(t, "testdata/way.txt", b.Bytes())
	recorded.JSON(t, "testdata/way.json", hops)
}
