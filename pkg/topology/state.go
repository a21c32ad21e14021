package topology

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// State is the planner's input: the cluster's objects as a source delivered them. The planner reads and never
// writes them.
type State struct {
	Gateways []*v1beta1.Gateway
	Nodes    []*corev1.Node
	// Endpoints are the nodes' own words (keys, ports, MTU), one per node, named like it.
	Endpoints []*v1beta1.TunnelEndpoint
	Config    Config
}

// Config holds the cluster-wide switches (raven-cfg, raven-agent-config, flags).
type Config struct {
	// EnableTunnel is raven-cfg's enable-l3-tunnel.
	EnableTunnel bool
	// ForwardNodeIP routes the nodes' own addresses between regions, as well as pods.
	ForwardNodeIP bool
	// Driver is wireguard, ipsec or plain.
	Driver string
	// ServiceCIDRs are never routed; a node or pod prefix that overlaps one is a conflict.
	ServiceCIDRs []netip.Prefix
	// TunnelPort is where the driver listens when neither spec nor status names a port.
	TunnelPort int
	// ProxySources may use the front ends of the L7 proxy; empty: the nodes and pods of the proxy's region.
	ProxySources []netip.Prefix `json:",omitempty"`
}

// Local is what only this node knows.
type Local struct {
	// UnderlayMTU in bytes of the device that holds the node's address.
	UnderlayMTU int
	// Direct asks for next hops of kind direct inside the region.
	Direct bool
	// Throws are more hosts that must never be looked up in table 9027, such as the API server's address.
	Throws []netip.Addr
	// Port chooses where this node's driver listens.
	Port PortChoice
}
