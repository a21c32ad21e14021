package controller

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// bell is the source of a reconciler that always looks at everything: however often it rings, that is one look a pause.
type bell struct {
	mu    sync.Mutex
	queue queue
	every time.Duration
}

// Start implements source.Source.
func (b *bell) Start(_ context.Context, q queue) error {
	b.mu.Lock()
	b.queue = q
	b.mu.Unlock()
	b.ring()
	return nil
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.queue != nil {
		b.queue.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: "all"}}, b.every)
	}
}
