package controller

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Reasons of events on Nodes, beside those of the node's own problems.
const (
	EventDegraded = "DatapathDegraded"
	EventRestored = "DatapathRestored"
)

// degraded tells by events on a Node what its agent says of it: that it is not accelerated, and what it could not do.
// An agent may write its own TunnelEndpoint only; hence the controller does.
type degraded struct {
	client client.Client
	events *recorder
	// told is what was told of a node last: the mode with its reason, and problems. The controller has one worker.
	told map[string]wordOfNode
}

type wordOfNode struct {
	mode v1beta1.DatapathMode
	why  string
	// problems without their messages, in which counters may run: a fight over a file is told of once.
	problems map[v1beta1.Problem]bool
}

func newDegraded(c client.Client, events *recorder) *degraded {
	return &degraded{client: c, events: events, told: map[string]wordOfNode{}}
}

// Reconcile implements reconcile.Reconciler. The request names a node.
func (d *degraded) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	key := client.ObjectKey{Name: request.Name}
	te, node := &v1beta1.TunnelEndpoint{}, &corev1.Node{}
	if err := d.client.Get(ctx, key, te); apierrors.IsNotFound(err) {
		delete(d.told, request.Name)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, err
	}
	if err := d.client.Get(ctx, key, node); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	before, now := d.told[request.Name], wordOfNode{te.Status.Datapath, te.Status.DatapathReason, map[v1beta1.Problem]bool{}}
	d.told[request.Name] = now
	switch {
	case now.mode == v1beta1.DatapathBaseline && (before.mode != now.mode || before.why != now.why):
		d.events.ofNode(ctx, node, corev1.EventTypeWarning, "Forward", EventDegraded,
			"the kernel's tables forward everything, without acceleration: "+now.why)
	case now.mode == v1beta1.DatapathAccelerated && before.mode == v1beta1.DatapathBaseline:
		d.events.ofNode(ctx, node, corev1.EventTypeNormal, "Forward", EventRestored, "accelerated again")
	}
	for _, p := range te.Status.Problems {
		which := v1beta1.Problem{Object: p.Object, Reason: p.Reason}
		if now.problems[which] = true; !before.problems[which] {
			d.events.ofNode(ctx, node, corev1.EventTypeWarning, "Apply", p.Reason, fmt.Sprintf("%s: %s", p.Object, p.Message))
		}
	}
	return reconcile.Result{}, nil
}

// ofNode reports whether a problem is the node's own. Others, such as a bad Gateway, every node of the cluster has, and the
// Gateway's conditions say them once.
func ofNode(p v1beta1.Problem) bool {
	return strings.HasPrefix(p.Object, "CNI/") || strings.HasPrefix(p.Object, "Applier/")
}
