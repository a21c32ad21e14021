package checks

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// end is a node or pod that sends or receives.
type end struct {
	host   *lab.Host
	region *lab.Region
	node   *lab.Node
	pod    *lab.Pod // nil: the node itself
}

// addr is the end's own address of a family.
func (e end) addr(family int) netip.Addr {
	switch {
	case e.pod != nil && family == 4:
		return e.pod.IP4
	case e.pod != nil:
		return e.pod.IP6
	case family == 4:
		return e.node.IP4
	default:
		return e.node.IP6
	}
}

func (e end) String() string {
	if e.pod == nil {
		return "node " + e.host.Name
	}
	return "pod " + e.host.Name
}

// findEnd finds a node ("hangzhou-2") or pod ("hangzhou-2/a").
func findEnd(l *lab.Lab, name string) (end, error) {
	nodeName, podName, isPod := strings.Cut(name, "/")
	for i := range l.Spec.Regions {
		r := &l.Spec.Regions[i]
		for j := range r.Nodes {
			n := &r.Nodes[j]
			if n.Name != nodeName {
				continue
			}
			e := end{host: l.Host(name), region: r, node: n}
			for k := range n.Pods {
				if isPod && n.Pods[k].Name == podName {
					e.pod = &n.Pods[k]
				}
			}
			if e.host != nil && isPod == (e.pod != nil) {
				return e, nil
			}
		}
	}
	return end{}, fmt.Errorf("lab %s has no node or pod %q", l.Name, name)
}

// hops are the nodes that a packet crosses from a to b, both ends' nodes included: gateways, and the exposed gateway of
// a third region where both are behind NAT.
func hops(l *lab.Lab, a, b end) []string {
	names := []string{a.node.Name, a.region.Gateway().Name}
	if !a.region.Exposed() && !b.region.Exposed() {
		for i := range l.Spec.Regions {
			if r := &l.Spec.Regions[i]; r.Exposed() {
				names = append(names, r.Gateway().Name)
				break
			}
		}
	}
	names = append(names, b.region.Gateway().Name, b.node.Name)
	var path []string
	for _, name := range names {
		if len(path) == 0 || path[len(path)-1] != name {
			path = append(path, name)
		}
	}
	return path
}

// wantTTL is the TTL that an answer from b arrives at a with: 64 less one for each node that forwards it.
func wantTTL(l *lab.Lab, a, b end) int {
	forwarders := len(hops(l, a, b))
	for _, e := range []end{a, b} {
		if e.pod == nil {
			forwarders--
		}
	}
	return 64 - forwarders
}
