package controller

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// garbage deletes the TunnelEndpoint of a deleted Node, so that its key leaves every peer.
type garbage struct {
	client client.Client
	// live reads past the cache: a cache that lags or restarts must not cost a node its tunnels.
	live client.Reader
	log  *slog.Logger
}

// Reconcile implements reconcile.Reconciler. The request names a node.
func (g *garbage) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	name := client.ObjectKey{Name: request.Name}
	te := &v1beta1.TunnelEndpoint{}
	if err := g.client.Get(ctx, name, te); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	node := &metav1.PartialObjectMetadata{}
	node.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	if err := g.client.Get(ctx, name, &corev1.Node{}); !apierrors.IsNotFound(err) {
		return reconcile.Result{}, err
	}
	if err := g.live.Get(ctx, name, node); !apierrors.IsNotFound(err) {
		return reconcile.Result{}, err
	}
	g.log.Info("deleting the TunnelEndpoint of a Node that does not exist", "node", request.Name)
	if err := g.client.Delete(ctx, te, client.Preconditions{UID: &te.UID}); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("delete TunnelEndpoint %s, whose Node is gone: %w", request.Name, err)
	}
	return reconcile.Result{}, nil
}
