package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/inventory"
	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/topology"
)

// serving keeps the Services, their EndpointSlices and the DNS records, all in one look: one bad Service costs itself.
type serving struct {
	client client.Client
	// dns reads the ConfigMap of the DNS records.
	dns       client.Reader
	inventory *inventory.Inventory
	log       *slog.Logger

	mu sync.Mutex
	// targets as last written, for the case that the internal Service is deleted.
	targets services.Targets
	without []int
}

// Reconcile implements reconcile.Reconciler.
func (s *serving) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	state := s.inventory.State()
	slices.SortFunc(state.Gateways, func(a, b *v1beta1.Gateway) int { return cmp.Compare(a.Name, b.Name) })
	on := s.inventory.Switches().Proxy
	proxy, err := s.internal(ctx, state.Gateways, on)
	if !on {
		proxy = ""
	}
	err = errors.Join(err, s.balancers(ctx, state.Gateways), s.records(ctx, state, proxy))
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return reconcile.Result{RequeueAfter: pause}, nil // the watch brings what another wrote
	}
	return reconcile.Result{RequeueAfter: resync}, err
}

// internal keeps the internal Service, and returns its address if it leads anywhere.
func (s *serving) internal(ctx context.Context, gateways []*v1beta1.Gateway, on bool) (string, error) {
	known, err := s.knownTargets(ctx)
	if err != nil {
		return "", err
	}
	want := services.NewInternal(gateways, known, on)
	s.mu.Lock()
	if !slices.Equal(want.Without, s.without) {
		s.log.Warn("HTTPS ports are left out: the proxy has 21 ports for them, and all are taken", "ports", want.Without)
	}
	s.without = want.Without
	s.mu.Unlock()
	if want.Service == nil {
		return "", s.endpoints(ctx, services.InternalName, nil, nil)
	}
	have, err := s.service(ctx, want.Service)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	s.targets = services.ParseTargets(want.Service.Annotations[services.AnnotationTargets])
	s.mu.Unlock()
	if err := s.endpoints(ctx, services.InternalName, have, want.Slices); err != nil || len(want.Slices) == 0 {
		return "", err
	}
	return have.Spec.ClusterIP, nil
}

func (s *serving) knownTargets(ctx context.Context) (services.Targets, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var have corev1.Service
	switch err := s.client.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: services.InternalName}, &have); {
	case apierrors.IsNotFound(err):
		return s.targets, nil
	case err != nil:
		return nil, fmt.Errorf("read Service %s/%s: %w", Namespace, services.InternalName, err)
	}
	if text := have.Annotations[services.AnnotationTargets]; text != "" || s.targets == nil {
		return services.ParseTargets(text), nil
	}
	return s.targets, nil
}

// balancers keeps the LoadBalancer Services of all Gateways, and deletes those that no Gateway asks for any more.
func (s *serving) balancers(ctx context.Context, gateways []*v1beta1.Gateway) error {
	var errs []error
	wanted := map[string]bool{}
	for _, gw := range gateways {
		for _, lb := range services.NewLoadBalancers(gw) {
			wanted[lb.Service.Name] = true
			lb.Service.OwnerReferences = []metav1.OwnerReference{{APIVersion: v1beta1.GroupVersion.String(), Kind: "Gateway", Name: gw.Name, UID: gw.UID}}
			have, err := s.service(ctx, lb.Service)
			if err == nil {
				err = s.endpoints(ctx, lb.Service.Name, have, lb.Slices)
			}
			errs = append(errs, err)
		}
	}
	var all corev1.ServiceList
	if err := s.client.List(ctx, &all, client.InNamespace(Namespace), client.MatchingLabels{services.LabelManagedBy: services.ManagedBy}); err != nil {
		return errors.Join(append(errs, fmt.Errorf("list the LoadBalancer Services: %w", err))...)
	}
	for i := range all.Items {
		have := &all.Items[i]
		if _, ours := services.BalancerOf(have); !ours || wanted[have.Name] {
			continue
		}
		s.log.Info("deleting a LoadBalancer Service that no Gateway asks for", "service", have.Name)
		if err := client.IgnoreNotFound(s.client.Delete(ctx, have, client.Preconditions{UID: &have.UID})); err != nil {
			errs = append(errs, fmt.Errorf("delete Service %s/%s: %w", Namespace, have.Name, err))
		}
	}
	return errors.Join(errs...)
}

// service makes a Service be as wanted, and returns it.
func (s *serving) service(ctx context.Context, want *corev1.Service) (*corev1.Service, error) {
	want.Namespace = Namespace
	have := &corev1.Service{}
	switch err := s.client.Get(ctx, client.ObjectKeyFromObject(want), have); {
	case apierrors.IsNotFound(err):
		if err := s.client.Create(ctx, want); err != nil {
			return nil, fmt.Errorf("create Service %s/%s: %w", Namespace, want.Name, err)
		}
		s.log.Info("created a Service", "service", want.Name)
		return want, nil
	case err != nil:
		return nil, fmt.Errorf("read Service %s/%s: %w", Namespace, want.Name, err)
	}
	if !services.Amend(have, want) {
		return have, nil
	}
	if err := s.client.Update(ctx, have); err != nil {
		return nil, fmt.Errorf("write Service %s/%s: %w", Namespace, want.Name, err)
	}
	return have, nil
}

// endpoints makes a Service's EndpointSlices be as wanted.
func (s *serving) endpoints(ctx context.Context, service string, owner *corev1.Service, want []services.Endpoints) error {
	var have discoveryv1.EndpointSliceList
	err := s.client.List(ctx, &have, client.InNamespace(Namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: services.ManagedBy})
	if err != nil {
		return fmt.Errorf("list the EndpointSlices of Service %s/%s: %w", Namespace, service, err)
	}
	var errs []error
	try := func(doing, name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s EndpointSlice %s/%s: %w", doing, Namespace, name, err))
		}
	}
	for _, w := range want {
		w.Namespace = Namespace
		w.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: owner.Name, UID: owner.UID, Controller: ptr.To(true)}}
		i := slices.IndexFunc(have.Items, func(h discoveryv1.EndpointSlice) bool { return h.Name == w.Name })
		if i < 0 {
			try("create", w.Name, s.client.Create(ctx, w))
		} else if h := &have.Items[i]; services.AmendSlice(h, w) {
			try("write", w.Name, s.client.Update(ctx, h))
		}
	}
	for i := range have.Items {
		h := &have.Items[i]
		if !slices.ContainsFunc(want, func(w services.Endpoints) bool { return w.Name == h.Name }) {
			try("delete", h.Name, client.IgnoreNotFound(s.client.Delete(ctx, h)))
		}
	}
	return errors.Join(errs...)
}

// records keeps the ConfigMap with the hosts lines. proxy is the internal Service's address; "": there is no way by it.
func (s *serving) records(ctx context.Context, state topology.State, proxy string) error {
	exposed := map[string]bool{}
	for _, gw := range state.Gateways {
		exposed[gw.Name] = gw.Spec.ExposeType != v1beta1.ExposeNone
	}
	nodes := make([]services.Record, 0, len(state.Nodes))
	for _, n := range state.Nodes {
		r := services.Record{Name: n.Name}
		if ip4, ip6, _ := topology.InternalIPs(n); ip4.IsValid() {
			r.Address = ip4.String()
		} else if ip6.IsValid() {
			r.Address = ip6.String()
		}
		home, _ := s.inventory.GatewayOf(n.Name)
		r.Exposed = exposed[home]
		nodes = append(nodes, r)
	}
	text := services.Hosts(nodes, proxy)
	want := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: dnsName},
		Data: map[string]string{services.DNSKey: text}}
	have := &corev1.ConfigMap{}
	switch err := s.dns.Get(ctx, client.ObjectKeyFromObject(want), have); {
	case apierrors.IsNotFound(err):
		if err := s.client.Create(ctx, want); err != nil {
			return fmt.Errorf("create ConfigMap %s/%s: %w", Namespace, dnsName, err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("read ConfigMap %s/%s: %w", Namespace, dnsName, err)
	}
	if have.Data[services.DNSKey] == text {
		return nil
	}
	// The cache holds less of it than there is, so a patch and not an update.
	if err := s.client.Patch(ctx, want, client.Merge); err != nil {
		return fmt.Errorf("write ConfigMap %s/%s: %w", Namespace, dnsName, err)
	}
	return nil
}
