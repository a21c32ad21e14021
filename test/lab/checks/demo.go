package checks

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ravencni/raven/test/lab"
)

// DemoLab is one of the labs that a demonstration runs.
type DemoLab struct {
	Name    string
	Options lab.AgentOptions
	// Groups of checks that follow those of the traffic between all pairs.
	Groups []Group
}

// DemoLabs are the tutorial's cluster with acceleration and without.
func DemoLabs() []DemoLab {
	return []DemoLab{
		{"accelerated", lab.AgentOptions{Acceleration: "auto"}, []Group{{SurviveKill}}},
		{"baseline", lab.AgentOptions{Acceleration: "off"}, []Group{{SurviveKill}}},
	}
}

// Demo builds the labs side by side, runs their checks and calls report for each outcome as it comes, never twice at
// once.
func Demo(ctx context.Context, name string, labs []DemoLab, report func(Outcome)) {
	var mu sync.Mutex
	serially := func(o Outcome) {
		mu.Lock()
		defer mu.Unlock()
		report(o)
	}
	var all sync.WaitGroup
	for _, d := range labs {
		all.Go(func() { d.run(ctx, name+"-"+d.Name, serially) })
	}
	all.Wait()
}

func (d DemoLab) run(ctx context.Context, name string, report func(Outcome)) {
	var l *lab.Lab
	ready := One(ctx, d.Name, nil, Check{
		Name: "ready", Says: "agents on all nodes are ready and all tunnels are up",
		Run: func(ctx context.Context, _ *lab.Lab) (evidence string, err error) {
			l, evidence, err = d.start(ctx, name)
			return evidence, err
		},
	})
	if ready.Err == nil {
		ready.Err = l.ServeEcho(ctx)
	}
	report(ready)
	if ready.Err != nil {
		return
	}
	report(One(ctx, d.Name, l, everyone(d.Name, report)))
	Run(ctx, d.Name, l, d.Groups, report)
}

func (d DemoLab) start(ctx context.Context, name string) (*lab.Lab, string, error) {
	l, err := lab.Start(ctx, name, lab.Tutorial())
	if err != nil {
		return nil, "", err
	}
	if err := l.StartAgents(ctx, d.Options); err != nil {
		return nil, "", err
	}
	return l, fmt.Sprintf("%d hosts, %d agents", len(l.Hosts()), len(l.Nodes())), nil
}

// everyone is the check that all pairs reach one another while nothing but the tunnel's UDP is seen between the NAT
// boxes. Its parts are reported one by one.
func everyone(name string, report func(Outcome)) Check {
	return Check{
		Name: "wire",
		Says: "between the NAT boxes only UDP of the tunnel, never an inner address",
		Run: func(ctx context.Context, l *lab.Lab) (string, error) {
			return WatchTheWire(ctx, l, func(ctx context.Context) error {
				if !Run(ctx, name, l, []Group{Reach(), {InnerOnOverlay}}, report) {
					return errors.New("some of the traffic did not pass")
				}
				return nil
			})
		},
	}
}
