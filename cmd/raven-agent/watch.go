package main

import (
	"context"
	"sync"

	"github.com/ravencni/raven/pkg/agent"
	"github.com/ravencni/raven/pkg/datapath/watch"
)

// kernelWatch passes the kernel's events on to the agent. It remembers what to track across restarts of the watcher.
type kernelWatch struct {
	// devices names the applier that devices other than Raven's and the underlay's concern: the pods'.
	devices string
	// routes names the applier of rules and routes.
	routes string

	mu      sync.Mutex
	watcher *watch.Watcher
	indices []int
}

// track names the devices whose own changes matter besides Raven's.
func (k *kernelWatch) track(indices ...int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.indices = indices
	if k.watcher != nil {
		k.watcher.Track(indices...)
	}
}

func (k *kernelWatch) run(ctx context.Context, changed func(agent.Notice)) error {
	w, err := watch.New(watch.Options{})
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.watcher = w
	w.Track(k.indices...)
	k.mu.Unlock()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for {
		select {
		case <-w.Kernel():
			changed(agent.Notice{What: "kernel event"})
		case <-w.Routes():
			changed(agent.Notice{What: "route event", Part: k.routes})
		case <-w.Links():
			changed(agent.Notice{What: "device event", Part: k.devices})
		case err := <-ended:
			return err
		}
	}
}
