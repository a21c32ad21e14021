package agent

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/ravencni/raven/pkg/agent/metrics"
	"github.com/ravencni/raven/pkg/agent/publish"
	"github.com/ravencni/raven/pkg/agent/snapshot"
	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel"
	"github.com/ravencni/raven/pkg/datapath/pods"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// DriverChoice is a tunnel driver that the agent knows.
type DriverChoice struct {
	Name string
	// New makes the driver; it touches nothing yet. nil: it is not built.
	New func() (tunnel.Driver, error)
	// Refuse says why this driver may be cleaned up but not be used; nil: it may.
	Refuse error
}

// Accelerator is the applier that attaches eBPF programs. Its failure is no failure of the node, which then forwards by
// the kernel's tables alone.
type Accelerator interface {
	datapath.Applier
	// Mode says how the node forwards since the last Apply, and why it is not accelerated.
	Mode() (v1beta1.DatapathMode, string)
	// Pods are the local pods as the last Apply saw them.
	Pods() []pods.Pod
	// Attachments are where programs run, or would but for a reason.
	Attachments() []accel.Attachment
}

// Parts are what an Agent is made of.
type Parts struct {
	// Node is the name of this node.
	Node string
	// NodeIP is what --node-ip says; invalid where it was not given.
	NodeIP netip.Addr
	// Direct asks for in-region forwarding without VXLAN.
	Direct bool

	Source   source.Source
	Snapshot *snapshot.Store
	// Seed is the snapshot that the source started from; nil: there was none.
	Seed *source.Input
	// Standalone is true where there is no controller: the source elects.
	Standalone bool
	Drivers    []DriverChoice

	// Overlay, Sysctl, Filter and Route are the kernel baseline.
	Overlay, Sysctl, Filter, Route datapath.Applier
	Accel                          Accelerator
	// Resolve finds this node's devices for a plan.
	Resolve func(*topology.Plan, tunnel.Device) (datapath.Host, error)
	// UnderlayMTU is the MTU in bytes of the device that holds the addresses.
	UnderlayMTU func(...netip.Addr) (int, error)
	// Watchers run beside the loop and call their argument when something in the kernel changed that may be ours. They return when the context is done; an earlier return is started again.
	Watchers []Watcher
	// Track is told after each pass which devices matter besides Raven's own; nil: nobody wants to know.
	Track func(indices ...int)

	// Beside tells the problems of what runs beside the loop and is no applier, such as the CNI plugin's installation;
	// nil: there is nothing.
	Beside func() []topology.Problem
	// Proxy is told the cluster's objects at each pass that has some; nil: nobody wants to know. It must not wait.
	Proxy func(topology.State)

	// Publisher is nil where nothing is published.
	Publisher *publish.Publisher
	Metrics   *metrics.Metrics
	Log       *slog.Logger
}

// Watcher gives notices of changes in the kernel.
type Watcher struct {
	Name string
	Run  func(ctx context.Context, changed func(Notice)) error
}
