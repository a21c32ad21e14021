package source

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// listWatch lists and watches one resource; name narrows it to one object of kube-system.
func listWatch(client rest.Interface, resource, name string) *cache.ListWatch {
	namespace, selector := metav1.NamespaceAll, fields.Everything()
	if name != "" {
		namespace, selector = configNamespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name)
	}
	return cache.NewListWatchFromClient(client, resource, namespace, selector)
}

// reporting tells k whether a kind can be listed and watched.
func (k *Kube) reporting(kind string, lw *cache.ListWatch) cache.ListerWatcher {
	report := func(ctx context.Context, err error) {
		if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return // shutting down, or a resource version that is too old, which a list repairs
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		k.mu.Lock()
		same := k.failures[kind] == text
		k.mu.Unlock()
		if same {
			return
		}
		k.change(func() {
			if delete(k.failures, kind); text != "" {
				k.failures[kind] = text
			}
		})
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := lw.ListWithContextFunc(ctx, o)
			report(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := lw.WatchFuncWithContext(ctx, o)
			report(ctx, err)
			return w, err
		},
	}
}

// store takes the objects of one kind from a reflector. It knows a deletion that was seen from an object that is merely
// missing in a new list.
type store[T any, P named[T]] struct {
	kube *Kube
	kind string
	held *map[string]P // under kube.mu
	trim func(P) P
	// leaving is nil where a deletion counts at once: a kind that is not Raven's own cannot vanish.
	leaving *leaving
}

// Transformer lets the reflector trim objects before it collects them.
func (s *store[T, P]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if o, ok := obj.(P); ok {
			return s.trim(o), nil
		}
		return obj, nil
	}
}

// Add implements cache.ReflectorStore.
func (s *store[T, P]) Add(obj any) error { return s.Update(obj) }

// Update implements cache.ReflectorStore.
func (s *store[T, P]) Update(obj any) error {
	o, ok := obj.(P)
	if !ok {
		return fmt.Errorf("take one of the %s from the API server: it is a %T", s.kind, obj)
	}
	o = s.trim(o)
	s.kube.mu.Lock()
	old, known := (*s.held)[o.GetName()]
	_, vanished := s.kube.vanished[s.kind]
	if s.leaving != nil {
		delete(s.leaving.names, o.GetName())
	}
	s.kube.mu.Unlock()
	if known && !vanished && equality.Semantic.DeepEqual(old, o) {
		return nil // a heartbeat
	}
	s.kube.change(func() {
		delete(s.kube.vanished, s.kind)
		(*s.held)[o.GetName()] = o
		s.kube.emptied = s.kube.emptied && s.kind != kindGateways
	})
	return nil
}

// Delete implements cache.ReflectorStore: the API server said that the object was deleted. See leaving for Raven's own.
func (s *store[T, P]) Delete(obj any) error {
	o, ok := obj.(P)
	if !ok {
		return fmt.Errorf("forget one of the %s of the API server: it is a %T", s.kind, obj)
	}
	if s.leaving != nil {
		s.kube.mu.Lock()
		if _, held := (*s.held)[o.GetName()]; held {
			s.leaving.names[o.GetName()] = true
		}
		s.kube.mu.Unlock()
		s.leaving.more.give()
		return nil
	}
	s.kube.change(func() {
		delete(*s.held, o.GetName())
		if s.kind == kindGateways && len(*s.held) == 0 {
			s.kube.emptied = true
		}
	})
	return nil
}

// Replace implements cache.ReflectorStore: a new list. An empty one where there were objects is not believed, since a
// cache on the way to the API server gives such answers as well.
func (s *store[T, P]) Replace(list []any, _ string) error {
	fresh := make(map[string]P, len(list))
	var errs []error
	for _, obj := range list {
		o, ok := obj.(P)
		if !ok {
			errs = append(errs, fmt.Errorf("take one of the %s from the API server's list: it is a %T", s.kind, obj))
			continue
		}
		fresh[o.GetName()] = s.trim(o)
	}
	s.kube.change(func() {
		s.kube.listed[s.kind] = true
		delete(s.kube.vanished, s.kind)
		if s.leaving != nil {
			clear(s.leaving.names) // this list says what is left
		}
		var problems []topology.Problem
		*s.held = keepKind(s.kind, apiServer, *s.held, fresh, false, &problems)
		for _, p := range problems {
			s.kube.vanished[s.kind] = p
		}
		if s.kind == kindGateways && len(fresh) > 0 {
			s.kube.emptied = false
		}
	})
	return errors.Join(errs...)
}

// Resync implements cache.ReflectorStore.
func (s *store[T, P]) Resync() error { return nil }

// configStore takes one ConfigMap from a reflector. A deleted one leaves its last known values.
type configStore struct {
	kube *Kube
	kind string
	name string
}

// Add implements cache.ReflectorStore.
func (s *configStore) Add(obj any) error { return s.Update(obj) }

// Update implements cache.ReflectorStore.
func (s *configStore) Update(obj any) error {
	c, ok := obj.(*corev1.ConfigMap)
	if !ok {
		return fmt.Errorf("take %s from the API server: it is a %T", s.kind, obj)
	}
	s.kube.change(func() { s.kube.held.configs[s.name] = trimConfig(c) })
	return nil
}

// Delete implements cache.ReflectorStore.
func (s *configStore) Delete(any) error {
	s.kube.change(func() { delete(s.kube.held.configs, s.name) })
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *configStore) Replace(list []any, _ string) error {
	s.kube.change(func() {
		s.kube.listed[s.kind] = true
		delete(s.kube.held.configs, s.name)
		for _, obj := range list {
			if c, ok := obj.(*corev1.ConfigMap); ok && c.Name == s.name {
				s.kube.held.configs[s.name] = trimConfig(c)
			}
		}
	})
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *configStore) Resync() error { return nil }

var (
	_ cache.TransformingStore = (*store[v1beta1.Gateway, *v1beta1.Gateway])(nil)
	_ cache.ReflectorStore    = (*configStore)(nil)
)
