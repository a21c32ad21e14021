package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/calico"
	"github.com/ravencni/raven/pkg/controller/inventory"
	"github.com/ravencni/raven/pkg/controller/services"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// feed is the gateway reconciler's source: it brings what the watches deliver into the inventory and queues the
// Gateways that this touches.
type feed struct {
	cache     cache.Cache
	configs   map[string]cache.Cache
	mapper    meta.RESTMapper
	inventory *inventory.Inventory
	// analyst is told of every change, and looks at the whole cluster later.
	analyst *analyst
	// changed is called after every change.
	changed []func()
	log     *slog.Logger

	// ready is closed once the inventory is whole.
	ready chan struct{}

	mu       sync.Mutex
	queue    queue
	synced   []toolscache.InformerSynced
	blocksOn bool
}

// Start implements source.Source.
func (f *feed) Start(ctx context.Context, q queue) error {
	f.mu.Lock()
	f.queue = q
	f.mu.Unlock()
	v := f.inventory
	err := errors.Join(
		watch(ctx, f, &corev1.Node{}, v.SetNode, func(n *corev1.Node) []string { return v.DeleteNode(n.Name) }),
		watch(ctx, f, &v1beta1.Gateway{}, v.SetGateway, func(g *v1beta1.Gateway) []string { return v.DeleteGateway(g.Name) }),
		watch(ctx, f, &v1beta1.TunnelEndpoint{}, v.SetEndpoint, func(e *v1beta1.TunnelEndpoint) []string { return v.DeleteEndpoint(e.Name) }),
		watch[*discoveryv1.EndpointSlice](ctx, f, &discoveryv1.EndpointSlice{}, nil, nil),
		watch(ctx, f, &corev1.Service{}, f.setService, func(s *corev1.Service) []string {
			b, _ := services.BalancerOf(s)
			return v.SetBalancer(b, "")
		}),
	)
	for _, configs := range f.configs {
		err = errors.Join(err, watchIn(ctx, f, configs, &corev1.ConfigMap{}, f.setConfig, func(c *corev1.ConfigMap) []string {
			return f.setConfig(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: c.Name}})
		}))
	}
	if err != nil {
		return err
	}
	_, err = f.watchBlocks(ctx)
	return err
}

// WaitForSync implements source.SyncingSource. The first analysis is done when it returns, so that the first status
// that is written is right.
func (f *feed) WaitForSync(ctx context.Context) error {
	f.mu.Lock()
	synced := f.synced
	f.mu.Unlock()
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("list the cluster's objects: %w; see the log for what the API server refuses", context.Cause(ctx))
	}
	f.inventory.Loaded()
	f.analyst.analyse()
	f.enqueue(f.inventory.Gateways())
	close(f.ready)
	return nil
}

func (f *feed) String() string { return "feed" }

// watchBlocks watches Calico's BlockAffinities where that CRD exists, and tells whether it does.
func (f *feed) watchBlocks(ctx context.Context) (bool, error) {
	f.mu.Lock()
	on := f.blocksOn
	f.mu.Unlock()
	if on {
		return true, nil
	}
	_, err := f.mapper.RESTMapping(calico.GroupVersion.WithKind("BlockAffinity").GroupKind(), calico.GroupVersion.Version)
	if meta.IsNoMatchError(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for Calico's BlockAffinities: %w", err)
	}
	set := func(b *calico.BlockAffinity) []string {
		if !b.Confirmed() {
			return f.inventory.SetBlock(b.Name, inventory.Block{})
		}
		return f.inventory.SetBlock(b.Name, inventory.Block{Node: b.Spec.Node, CIDR: b.Spec.CIDR})
	}
	err = watch(ctx, f, &calico.BlockAffinity{}, set, func(b *calico.BlockAffinity) []string {
		return f.inventory.SetBlock(b.Name, inventory.Block{})
	})
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	f.blocksOn = true
	f.mu.Unlock()
	f.log.Info("pod prefixes come from Calico's confirmed BlockAffinities, where a node has any")
	return true, nil
}

func (f *feed) setConfig(c *corev1.ConfigMap) []string {
	switch c.Name {
	case switchesName:
		return f.inventory.SetSwitches(c.Data)
	case settingsName:
		for _, problem := range f.analyst.setSettings(c.Data) {
			f.log.Warn("a setting is not used", "configmap", settingsName, "problem", problem)
		}
		return f.inventory.Gateways()
	default:
		return nil
	}
}

func (f *feed) setService(s *corev1.Service) []string {
	b, ok := services.BalancerOf(s)
	if !ok {
		return nil
	}
	return f.inventory.SetBalancer(b, services.IngressIP(s))
}

func (f *feed) enqueue(gateways []string) {
	f.mu.Lock()
	q := f.queue
	f.mu.Unlock()
	if q == nil {
		return
	}
	for _, name := range gateways {
		q.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	}
}

// watch hands every object of a kind to set, and to gone when it is deleted.
func watch[T client.Object](ctx context.Context, f *feed, kind T, set, gone func(T) []string) error {
	return watchIn(ctx, f, f.cache, kind, set, gone)
}

func watchIn[T client.Object](ctx context.Context, f *feed, in cache.Cache, kind T, set, gone func(T) []string) error {
	name := strings.TrimPrefix(fmt.Sprintf("%T", kind), "*")
	informer, err := in.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch %s: %w", name, err)
	}
	deliver := func(object any, to func(T) []string) {
		if t, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
			object = t.Obj
		}
		if o, ok := object.(T); ok {
			if to != nil {
				f.enqueue(to(o))
			}
			for _, tell := range f.changed {
				tell()
			}
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { deliver(o, set) },
		UpdateFunc: func(old, o any) {
			a, okA := old.(T)
			b, okB := o.(T)
			if okA && okB && a.GetResourceVersion() == b.GetResourceVersion() {
				return // the cache's own resync
			}
			deliver(o, set)
		},
		DeleteFunc: func(o any) { deliver(o, gone) },
	})
	if err != nil {
		return fmt.Errorf("watch %s: %w", name, err)
	}
	f.mu.Lock()
	f.synced = append(f.synced, registration.HasSynced)
	f.mu.Unlock()
	return nil
}
