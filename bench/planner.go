package bench

import (
	"encoding/base64"
	"fmt"
	"runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// PlannerResult is what one compilation of a Plan takes at scale, on an exposed gateway, which has the largest one.
type PlannerResult struct {
	Gateways int `json:"gateways"`
	Nodes    int `json:"nodes"`
	// Milliseconds is the median over the runs.
	Milliseconds float64 `json:"compile_ms"`
	Runs         int     `json:"runs"`
	Prefixes     int     `json:"prefixes"`
	// Allocations of one compilation, and their bytes.
	Allocations uint64 `json:"allocations"`
	Bytes       uint64 `json:"bytes"`
}

// MeasurePlanner compiles a Plan for a cluster of so many gateways with ten nodes each, a tenth of them exposed, both
// families.
func MeasurePlanner(gateways, runs int) (PlannerResult, error) {
	const nodesEach = 10
	state := Cluster(gateways, nodesEach)
	r := PlannerResult{Gateways: gateways, Nodes: gateways * nodesEach, Runs: runs}
	var times []float64
	var before, after runtime.MemStats
	for i := range runs + 1 {
		runtime.ReadMemStats(&before)
		begin := time.Now()
		plan := topology.Compile(state, state.Nodes[0].Name, topology.Local{UnderlayMTU: 1500})
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		if i == 0 { // warms up
			continue
		}
		times = append(times, float64(took.Nanoseconds())/1e6)
		r.Prefixes, r.Allocations, r.Bytes = len(plan.Prefixes), after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	}
	r.Milliseconds = median(times)
	if want := 2 * (gateways - 1) * nodesEach; r.Prefixes < want { // both families of all other regions' nodes
		return r, fmt.Errorf("the plan for %d nodes has %d prefixes, want at least %d: what was measured is no use", r.Nodes, r.Prefixes, want)
	}
	return r, nil
}

// Cluster is the state of a cluster of many regions: the first of ten is exposed, the others are behind NAT.
func Cluster(gateways, nodesEach int) topology.State {
	s := topology.State{Config: topology.Config{
		EnableTunnel: true, ForwardNodeIP: true, Driver: topology.DriverWireGuard, TunnelPort: v1beta1.DefaultTunnelPort,
	}}
	for g := range gateways {
		name := fmt.Sprintf("gw-%04d", g)
		gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name}}
		e := v1beta1.Endpoint{NodeName: name + "-0", Type: v1beta1.EndpointTunnel, Port: v1beta1.DefaultTunnelPort, UnderNAT: true}
		if g%10 == 0 {
			e.UnderNAT, e.PublicIP, gw.Spec.ExposeType = false, fmt.Sprintf("198.18.%d.%d", g/250, 1+g%250), v1beta1.ExposePublicIP
		}
		gw.Spec.Endpoints = []v1beta1.Endpoint{e}
		gw.Status.ActiveEndpoints = []*v1beta1.Endpoint{e.DeepCopy()}
		s.Gateways = append(s.Gateways, gw)
		for k := range nodesEach {
			i := g*nodesEach + k
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, k), Labels: map[string]string{v1beta1.LabelGateway: name}}}
			for _, a := range []string{fmt.Sprintf("172.%d.%d.%d", 16+i>>16, i>>8&255, i&255), fmt.Sprintf("fd00:1::%x:%x", g+1, k+1)} {
				n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
			}
			n.Spec.PodCIDRs = []string{fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("fd00:2:%x:%x::/64", g, k)}
			n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
			s.Nodes = append(s.Nodes, n)
			te := &v1beta1.TunnelEndpoint{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
			te.Status.UnderlayMTU = 1500
			key := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%32s", n.Name)) // 32 bytes, as keys have
			te.Status.Tunnels = []v1beta1.TunnelPort{{Driver: topology.DriverWireGuard, Port: v1beta1.DefaultTunnelPort, PublicKey: key}}
			s.Endpoints = append(s.Endpoints, te)
		}
	}
	return s
}
