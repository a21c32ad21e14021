package checks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ravencni/raven/test/lab"
)

// DemoLab is one of the labs that a demonstration runs.
type DemoLab struct {
	Name    string
	Options lab.AgentOptions
	// Checks follow, one after another, those of the traffic between all pairs.
	Checks []Check
}

// DemoLabs are the tutorial's cluster with acceleration and without.
func DemoLabs() []DemoLab {
	return []DemoLab{
		{"accelerated", lab.AgentOptions{Acceleration: "auto"}, []Check{
			Attachments, Dumps, RedirectPod, RedirectNode, PolicyRevoked, PolicyRejectsNewFlows, Spoofing, SurviveKill,
		}},
		{"baseline", lab.AgentOptions{Acceleration: "off"}, []Check{
			MTU, VirtualIP, Masquerade, PolicyRevoked, PolicyRejectsNewFlows, Spoofing, SurviveKill,
		}},
	}
}

// Order lists what the checks of labs say in the order in which a reader expects them; checks that run side by side
// end in any order.
func Order(labs []DemoLab) []string {
	says := []string{ready.Says}
	add := func(all ...Check) {
		for _, c := range all {
			if !slices.Contains(says, c.Says) {
				says = append(says, c.Says)
			}
		}
	}
	add(Reach()...)
	add(InnerOnOverlay, wire)
	for _, d := range labs {
		add(d.Checks...)
	}
	add(CleanedUp(nil))
	return says
}

// ready and wire are run by functions of their own.
var (
	ready = Check{Name: "ready", Says: "agents on all nodes are ready and all tunnels are up"}
	wire  = Check{Name: "wire", Says: "between the NAT boxes only UDP of the tunnel, never an inner address"}
)

// Demo builds the labs side by side, runs their checks and calls report for each outcome as it comes, never twice at
// once. With keep the labs are not cleaned up at the end, and that is not checked.
func Demo(ctx context.Context, name string, labs []DemoLab, keep bool, report func(Outcome)) {
	var mu sync.Mutex
	serially := func(o Outcome) {
		mu.Lock()
		defer mu.Unlock()
		report(o)
	}
	var all sync.WaitGroup
	for _, d := range labs {
		all.Go(func() { d.run(ctx, name+"-"+d.Name, keep, serially) })
	}
	all.Wait()
}

func (d DemoLab) run(ctx context.Context, name string, keep bool, report func(Outcome)) {
	var l *lab.Lab
	var before map[string]lab.Kernel
	start := ready
	start.Run = func(ctx context.Context, _ *lab.Lab) (evidence string, err error) {
		l, before, err = d.start(ctx, name)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d hosts, %d agents", len(l.Hosts()), len(l.Nodes())), nil
	}
	o := One(ctx, d.Name, nil, start)
	report(o)
	if o.Err != nil {
		return
	}
	report(One(ctx, d.Name, l, everyone(d.Name, report)))
	last := d.Checks
	if !keep {
		last = append(slices.Clone(last), CleanedUp(before))
	}
	for _, c := range last {
		report(One(ctx, d.Name, l, c))
	}
}

func (d DemoLab) start(ctx context.Context, name string) (*lab.Lab, map[string]lab.Kernel, error) {
	l, err := lab.Start(ctx, name, lab.Tutorial())
	if err != nil {
		return nil, nil, err
	}
	before, err := Kernels(ctx, l)
	if err != nil {
		return nil, nil, err
	}
	return l, before, errors.Join(l.StartAgents(ctx, d.Options), l.ServeEcho(ctx))
}

// everyone is the check that all pairs reach one another while nothing but the tunnel's UDP is seen between the NAT
// boxes. Its parts are reported one by one.
func everyone(name string, report func(Outcome)) Check {
	c := wire
	c.Run = func(ctx context.Context, l *lab.Lab) (string, error) {
		return WatchTheWire(ctx, l, func(ctx context.Context) error {
			if !Run(ctx, name, l, []Group{Reach(), {InnerOnOverlay}}, report) {
				return errors.New("some of the traffic did not pass")
			}
			return nil
		})
	}
	return c
}
