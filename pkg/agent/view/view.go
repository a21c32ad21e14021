// Package view is what the agent knows about its node after a pass: metrics, health and the published status all read
// this one value, so that they cannot disagree.
package view

import (
	"net/netip"
	"time"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// View is never written after it was handed out.
type View struct {
	// Synced and Waiting are the source's own words.
	Synced  bool
	Waiting string
	// FromSnapshot is true where the applied input is the one that the last run left on disk.
	FromSnapshot bool
	// Held says why the input is not applied, such as an answer without any Gateway; empty: it is applied.
	Held string
	// NoneYet is true where the cluster has no Gateway and this agent has never known one: there is nothing to do.
	NoneYet bool
	// Objects are the sizes of the input.
	Gateways, Nodes, Endpoints int

	// Plan is the last one that a pass applied; nil before the first pass.
	Plan *topology.Plan
	Host datapath.Host
	// UnderlayMTU in bytes, as measured last; 0 on a node of no region, and where it was never measured.
	UnderlayMTU int
	// Driver in use; empty before the first pass.
	Driver string
	// Offered: this node can hold an end of the driver's tunnels. PublicKey is empty for drivers whose ends prove
	// themselves otherwise.
	Offered   bool
	PublicKey string
	// Also is a second driver's end of the tunnels, on a gateway that changes from one to the other.
	Also *v1beta1.TunnelPort
	// KeyRequest is the request to change the key that was served last.
	KeyRequest string
	Peers      []tunnel.PeerStatus
	// PeerAddrs are addresses of the peers that lead through the tunnel, by node.
	PeerAddrs map[string]netip.Addr
	// ListenPort is where the tunnel driver listens, or would on a node that is not the gateway now.
	ListenPort int

	Datapath       v1beta1.DatapathMode
	DatapathReason string

	// PodsAccelerated and PodsNotAccelerated count the local pods of an accelerated node.
	PodsAccelerated, PodsNotAccelerated int

	// Problems are those of source, planner and appliers that this node names, sorted.
	Problems []topology.Problem
	// Elsewhere counts the cluster's other problems, which other nodes name.
	Elsewhere int
	// Passed is when the last whole pass ended; zero: there was none.
	Passed time.Time
	// Failed names what did not work in the last pass, by applier.
	Failed map[string]string
}
