package controller

import (
	"context"
	"errors"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// created lets pass what is new, or there at the start.
func created[T client.Object]() predicate.TypedPredicate[T] {
	return predicate.TypedFuncs[T]{
		UpdateFunc: func(event.TypedUpdateEvent[T]) bool { return false },
		DeleteFunc: func(event.TypedDeleteEvent[T]) bool { return false },
	}
}

// deleted lets pass what is gone.
func deleted[T client.Object]() predicate.TypedPredicate[T] {
	return predicate.TypedFuncs[T]{
		CreateFunc: func(event.TypedCreateEvent[T]) bool { return false },
		UpdateFunc: func(event.TypedUpdateEvent[T]) bool { return false },
	}
}

// after is a source that is in sync only once ready is closed.
func after(ready <-chan struct{}, s source.Source) source.SyncingSource {
	return gated{s, ready}
}

type gated struct {
	source.Source
	ready <-chan struct{}
}

// WaitForSync implements source.SyncingSource.
func (g gated) WaitForSync(ctx context.Context) error {
	select {
	case <-g.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// background is work of the leader beside the controllers.
type background struct {
	run func(context.Context) error
}

// Start implements manager.Runnable.
func (b background) Start(ctx context.Context) error { return b.run(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (b background) NeedLeaderElection() bool { return true }

// lookForBlocks waits for Calico's CRD to appear, where it is not there at the start.
func (f *feed) lookForBlocks(ctx context.Context, every time.Duration) error {
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		on, err := f.watchBlocks(ctx)
		if on {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			f.log.Warn("Calico's BlockAffinities are not watched", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// cacheCheck is ready once the caches are filled.
func cacheCheck(mgr manager.Manager) healthz.Checker {
	return func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("the cluster's objects are not listed yet")
		}
		return nil
	}
}
