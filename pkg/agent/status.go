package agent

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// nodeIPs lists the node's own addresses.
func nodeIPs(plan *topology.Plan) []string {
	var out []string
	for _, a := range []netip.Addr{plan.NodeIP4, plan.NodeIP6} {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return out
}

// datapathMode says how the node forwards after a pass.
func (a *Agent) datapathMode(plan *topology.Plan) (v1beta1.DatapathMode, string) {
	if plan.Role == topology.RoleNone {
		return v1beta1.DatapathOff, "the node is in no region, or L3 is switched off"
	}
	if why, failed := a.failed[a.Accel.Name()]; failed && a.View().Datapath == "" {
		return v1beta1.DatapathBaseline, why // the very first attempt failed
	}
	return a.Accel.Mode()
}

// notAccelerated names the pods and devices that somebody else's program or shaper keeps from being accelerated, and
// counts the pods.
func (a *Agent) notAccelerated(v *view.View) {
	delete(a.problemsNow, "accel")
	v.PodsAccelerated, v.PodsNotAccelerated = 0, 0
	if v.Datapath != v1beta1.DatapathAccelerated {
		return
	}
	var problems []topology.Problem
	told := map[string]bool{}
	for _, p := range a.Accel.Pods() {
		if p.Reason == "" {
			v.PodsAccelerated++
			continue
		}
		v.PodsNotAccelerated++
		told[p.Name] = true
		problems = append(problems, topology.Problem{
			Object: "Device/" + p.Name, Reason: "NotAccelerated",
			Message: fmt.Sprintf("the pod with %v is forwarded by the kernel's tables: %s", p.Addrs, p.Reason),
		})
	}
	for _, at := range a.Accel.Attachments() {
		if at.Reason != "" && !told[at.Device] {
			problems = append(problems, topology.Problem{
				Object: "Device/" + at.Device, Reason: "NotAccelerated",
				Message: fmt.Sprintf("%s is not attached: %s", at.Program, at.Reason),
			})
		}
	}
	a.problemsNow["accel"] = problems
}

// listenPort is where the tunnel driver listens, or would if this node became its region's gateway.
func listenPort(plan *topology.Plan, config topology.Config) int {
	if plan.Tunnel != nil {
		return plan.Tunnel.ListenPort
	}
	return config.TunnelPort
}

// publicKey is the node's key, for nodes of a region: any of them may be elected. It is empty with drivers that have no
// such key. Where the driver cannot say it, the key that was published last stays, since a status without one would make
// all peers end tunnels that work. While the key is being changed it is the next one, which the peers must know before the
// device takes it.
func (a *Agent) publicKey(ctx context.Context, plan *topology.Plan, known []*v1beta1.TunnelEndpoint) (key string, offered bool) {
	if plan.Role == topology.RoleNone {
		delete(a.problemsNow, "key")
		return "", false
	}
	key, err := a.driver.PublicKey(ctx)
	if err != nil {
		a.failed["key"] = oneLine(err)
		a.problemsNow["key"] = []topology.Problem{{Object: "Node/" + a.Node, Reason: "NoKey", Message: oneLine(err)}}
		key = cmp.Or(a.View().PublicKey, publishedKey(known, a.Node, a.driver.Name()))
		return key, key != ""
	}
	delete(a.problemsNow, "key")
	return cmp.Or(a.rotation.next, key), true
}

// publishedKey is what a node's TunnelEndpoint says of a driver's key; empty where it says nothing.
func publishedKey(known []*v1beta1.TunnelEndpoint, node, driver string) string {
	for _, te := range known {
		for _, t := range te.Status.Tunnels {
			if te.Name == node && t.Driver == driver {
				return t.PublicKey
			}
		}
	}
	return ""
}

// peers reads the tunnels' state; what was known stays where that fails.
func (a *Agent) peers(ctx context.Context) []tunnel.PeerStatus {
	peers, err := a.driver.Status(ctx)
	if err != nil {
		a.failed["status"] = oneLine(err)
		return a.View().Peers
	}
	delete(a.failed, "status")
	return peers
}

// publish hands the node's TunnelEndpoint to the publisher.
func (a *Agent) publish(v *view.View) {
	if a.Publisher == nil || v.Plan == nil {
		return
	}
	status := endpointStatus(v, a.published)
	a.published = &status
	a.Publisher.Set(status, v.Synced && !a.listed)
}

// endpointStatus is the node's own word. The message about a peer keeps its text for as long as the peer's state stays,
// since drivers put figures into it and the published status is no stream.
func endpointStatus(v *view.View, last *v1beta1.TunnelEndpointStatus) v1beta1.TunnelEndpointStatus {
	s := v1beta1.TunnelEndpointStatus{
		Gateway: v.Plan.Region, Addresses: nodeIPs(v.Plan), UnderlayMTU: v.UnderlayMTU,
		Datapath: v.Datapath, DatapathReason: v.DatapathReason, KeyRequest: v.KeyRequest,
	}
	if v.Offered {
		second := v.Plan.Tunnel != nil && v.Plan.Tunnel.Second
		s.Tunnels = []v1beta1.TunnelPort{{Driver: v.Driver, Port: v.ListenPort, Second: second, PublicKey: v.PublicKey}}
		if v.Also != nil {
			s.Tunnels = append(s.Tunnels, *v.Also)
		}
	}
	known := map[string]v1beta1.PeerHealth{}
	if last != nil {
		for _, p := range last.Peers {
			known[p.NodeName] = p
		}
	}
	dialsUs := map[string]bool{}
	if v.Plan.Tunnel != nil {
		for _, p := range v.Plan.Tunnel.Peers {
			dialsUs[p.Node] = !p.Endpoint.IsValid()
		}
	}
	up := 0
	for _, p := range v.Peers {
		if p.State == tunnel.StateUp {
			up++
		}
		health := v1beta1.PeerHealth{NodeName: p.Node, State: string(p.State), Message: p.Message}
		if old, ok := known[p.Node]; ok && old.State == health.State {
			health.Message = old.Message
		}
		s.Peers = append(s.Peers, health)
		if dialsUs[p.Node] && p.Endpoint.IsValid() {
			s.ObservedAddresses = append(s.ObservedAddresses,
				v1beta1.ObservedAddress{NodeName: p.Node, Address: p.Endpoint.String()})
		}
	}
	if len(v.Peers) > 0 {
		s.PeersUp = fmt.Sprintf("%d/%d", up, len(v.Peers))
	}
	for _, p := range v.Problems {
		s.Problems = append(s.Problems, v1beta1.Problem{Object: p.Object, Reason: p.Reason, Message: p.Message})
	}
	return s
}

// knownMTU is the underlay's MTU for others to read: where the device cannot be found now, what was measured last, be it
// by an earlier run, since a figure that goes and comes makes every node plan twice.
func (a *Agent) knownMTU(plan *topology.Plan, found datapath.Host, known []*v1beta1.TunnelEndpoint) int {
	if plan.Role == topology.RoleNone {
		return 0
	}
	mtu := cmp.Or(found.Underlay.MTU, a.View().UnderlayMTU, a.underlayMTU)
	for _, te := range known {
		if te.Name == a.Node {
			mtu = cmp.Or(mtu, te.Status.UnderlayMTU)
		}
	}
	return mtu
}

// measureUnderlay reads the MTU of the device that holds the node's addresses; 0: not known, for the planner to assume.
func (a *Agent) measureUnderlay(state topology.State) int {
	var addrs []netip.Addr
	for _, n := range state.Nodes {
		if n.Name != a.Node {
			continue
		}
		for _, address := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(strings.TrimSpace(address.Address)); address.Type == corev1.NodeInternalIP && err == nil {
				addrs = append(addrs, ip.Unmap())
			}
		}
	}
	if len(addrs) == 0 && a.NodeIP.IsValid() {
		addrs = append(addrs, a.NodeIP)
	}
	if len(addrs) == 0 {
		return a.underlayMTU
	}
	// The host step reports an address that no device holds; here the last known figure is better than none.
	if mtu, err := a.UnderlayMTU(addrs...); err == nil {
		a.underlayMTU = mtu
	}
	return a.underlayMTU
}
