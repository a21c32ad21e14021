package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/proxy"
	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/clusterapi"
	"github.com/ravencni/raven/pkg/topology"
)

// lookForTargets is how often the internal Service is read, which seldom changes.
const lookForTargets = 30 * time.Second

// l7 is the L7 proxy with what it needs of the API server. Nothing is asked of it before the node has a role.
type l7 struct {
	proxy  *proxy.Proxy
	keeper *certificates.Keeper
	client *clusterapi.Client
	log    *slog.Logger
	wanted chan struct{}
	once   sync.Once

	mu      sync.Mutex
	targets services.Targets
	state   *topology.State
}

func newL7(s *settings, client *clusterapi.Client, log *slog.Logger) *l7 {
	p := &l7{client: client, log: log, wanted: make(chan struct{})}
	// The first call to Identity comes when there is a role, and by then the keeper is there.
	p.keeper = certificates.NewKeeper(s.nodeName, s.stateDir, func() certificates.Names { return p.proxy.Names() }, client,
		func() { p.proxy.Renewed() }, log)
	p.proxy = proxy.New(proxy.Options{
		Node: s.nodeName, Identity: p.keeper, Targets: p.known, Log: log,
		Wanted: func(on bool) {
			if on {
				p.once.Do(func() { close(p.wanted) })
			}
		},
	})
	return p
}

func (p *l7) known() services.Targets {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.targets
}

// set takes the cluster's objects.
func (p *l7) set(state topology.State) {
	p.mu.Lock()
	p.state = &state
	p.mu.Unlock()
	p.proxy.Set(state)
}

// run works until ctx is done.
func (p *l7) run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { p.proxy.Run(ctx) })
	select {
	case <-ctx.Done():
		return
	case <-p.wanted:
	}
	group.Go(func() { p.keeper.Run(ctx) })
	group.Go(func() { p.followTargets(ctx) })
}

// followTargets reads which listener belongs to which HTTPS port.
func (p *l7) followTargets(ctx context.Context) {
	ticker := time.NewTicker(lookForTargets)
	defer ticker.Stop()
	for {
		targets, err := p.client.Targets(ctx)
		if err != nil && ctx.Err() == nil {
			p.log.Debug("the internal Service cannot be read; the listeners stay", "error", err)
		}
		p.mu.Lock()
		state := p.state
		changed := err == nil && targets.String() != p.targets.String()
		if changed {
			p.targets = targets
		}
		p.mu.Unlock()
		if changed && state != nil {
			p.proxy.Set(*state)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
