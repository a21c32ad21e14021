package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/inventory"
	"github.com/ravencni/raven/pkg/election"
	"github.com/ravencni/raven/pkg/topology"
)

const (
	// damping is the least time between two changes of a role, unless the active node is gone; docs/contract.md names it.
	damping = 30 * time.Second
	// settle is how long an active node must have been unready before another takes its role: after an outage of the API
	// server the node lifecycle controller finds all nodes unready, some dozens in a second.
	settle = 3 * time.Second
	// resync is how often a Gateway is looked at although nothing was heard of it.
	resync = 5 * time.Minute
	// truce is the least time between two writes of one status while another controller may write it as well.
	truce = 30 * time.Second
)

// gatewayReconciler works out one Gateway's status and writes it where it differs.
type gatewayReconciler struct {
	client    client.Client
	inventory *inventory.Inventory
	analyst   *analyst
	events    *recorder
	log       *slog.Logger
	now       func() time.Time

	mu sync.Mutex
	// changes holds when roles last changed, by condition type, then Gateway.
	changes map[string]map[string]time.Time
	// written holds when a status was last written while another controller may write it as well, by Gateway.
	written map[string]time.Time
}

func newGatewayReconciler(c client.Client, v *inventory.Inventory, a *analyst, log *slog.Logger) *gatewayReconciler {
	return &gatewayReconciler{client: c, inventory: v, analyst: a, events: newRecorder(c, log), log: log, now: time.Now,
		changes: map[string]map[string]time.Time{election.ConditionTunnelElected: {}, election.ConditionProxyElected: {}},
		written: map[string]time.Time{}}
}

// Reconcile implements reconcile.Reconciler.
func (r *gatewayReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	gw := r.inventory.Gateway(request.Name)
	if gw == nil {
		r.forget(request.Name)
		return reconcile.Result{}, nil
	}
	found := r.analyst.findings(gw.Name)
	opts := r.options(gw)
	result := election.FillStatus(gw, election.Region{
		Members: r.inventory.Members(gw.Name), GatewayOf: r.inventory.GatewayOf, Endpoint: r.inventory.Endpoint,
	}, opts)
	result.Conclude(found, opts)
	after := reconcile.Result{RequeueAfter: resync}
	for _, d := range []election.Decision{result.Tunnel, result.Proxy} {
		if d.RetryAfter > 0 {
			after.RequeueAfter = min(after.RequeueAfter, d.RetryAfter)
		}
	}
	if equality.Semantic.DeepEqual(gw.Status, result.Gateway.Status) {
		return after, nil
	}
	if wait := truce - r.now().Sub(r.lastWrite(gw.Name)); found.Foreign != "" && wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	tunnels, proxies := active(gw, v1beta1.EndpointTunnel), active(gw, v1beta1.EndpointProxy)
	switch err := r.client.Status().Update(ctx, result.Gateway); {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// Somebody wrote meanwhile: the watch is about to deliver it, and with it comes the next attempt.
		return reconcile.Result{RequeueAfter: 200 * time.Millisecond}, nil
	case ctx.Err() != nil:
		return reconcile.Result{}, nil // the controller is ending; the next one finds what is left to do
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("write the status of Gateway %s: %w", gw.Name, err)
	}
	statusWrites.Inc()
	r.remember(gw.Name, result, found.Foreign != "")
	r.events.roles(ctx, result.Gateway, v1beta1.EndpointTunnel, tunnels, result.Tunnel)
	r.events.roles(ctx, result.Gateway, v1beta1.EndpointProxy, proxies, result.Proxy)
	return after, nil
}

func (r *gatewayReconciler) options(gw *v1beta1.Gateway) election.Options {
	on := r.inventory.Switches()
	return election.Options{
		EnableTunnel: on.Tunnel, EnableProxy: on.Proxy, Driver: topology.DriverWireGuard, TunnelPort: r.analyst.tunnelPort(),
		Now: r.now(), MinInterval: damping, Settle: settle,
		LastChange: map[string]map[string]time.Time{
			election.ConditionTunnelElected: {gw.Name: r.lastChange(gw, election.ConditionTunnelElected)},
			election.ConditionProxyElected:  {gw.Name: r.lastChange(gw, election.ConditionProxyElected)},
		},
		PublicIP: r.publicIP, Subnets: r.inventory.Subnets,
	}
}

// publicIP finds the address of an endpoint that names none: its load balancer's, or where exposed gateways see it.
// An observed address stays while nobody sees the node, since nobody sees a better one.
func (r *gatewayReconciler) publicIP(gw *v1beta1.Gateway, e *v1beta1.Endpoint) string {
	switch {
	case gw.Spec.ExposeType == v1beta1.ExposeLoadBalancer:
		return r.inventory.BalancerAddress(inventory.Balancer{Gateway: gw.Name, Type: e.EffectiveType()})
	case gw.Spec.ExposeType != v1beta1.ExposeNone || !e.UnderNAT:
		return ""
	}
	last := ""
	for _, old := range gw.Status.ActiveEndpoints {
		if old != nil && old.NodeName == e.NodeName && old.UnderNAT {
			last = old.PublicIP
		}
	}
	if seen := r.inventory.Observed(e.NodeName, last); seen != "" {
		return seen
	}
	return last
}

// lastChange of a role: as remembered or, after a restart, as the condition says while it is True. (One that turned
// False says when the last candidate failed, which must not delay the next.)
func (r *gatewayReconciler) lastChange(gw *v1beta1.Gateway, condition string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.changes[condition][gw.Name]; ok {
		return t
	}
	if c := meta.FindStatusCondition(gw.Status.Conditions, condition); c != nil && c.Status == "True" {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

func (r *gatewayReconciler) lastWrite(gateway string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written[gateway]
}

func (r *gatewayReconciler) remember(gateway string, result election.Result, shared bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if shared {
		r.written[gateway] = now
	}
	if result.Tunnel.Changed {
		r.changes[election.ConditionTunnelElected][gateway] = now
	}
	if result.Proxy.Changed {
		r.changes[election.ConditionProxyElected][gateway] = now
	}
}

func (r *gatewayReconciler) forget(gateway string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.written, gateway)
	for _, of := range r.changes {
		delete(of, gateway)
	}
}

// active names the nodes that are active for a type.
func active(gw *v1beta1.Gateway, kind v1beta1.EndpointType) []string {
	var out []string
	for _, e := range gw.Status.ActiveEndpoints {
		if e != nil && e.EffectiveType() == kind {
			out = append(out, e.NodeName)
		}
	}
	return out
}
