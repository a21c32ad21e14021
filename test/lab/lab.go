package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Lab is a set of regions that run on this machine.
type Lab struct {
	// Name is unique in the enclosure.
	Name string
	// Dir holds manifests, logs and the nodes' lasting state.
	Dir  string
	Spec Spec

	mu      sync.Mutex
	hosts   map[string]*Host
	agents  map[string]*Agent
	options AgentOptions

	// life ends with Close; serving are the goroutines that end with it.
	life    context.Context
	end     context.CancelFunc
	serving sync.WaitGroup

	binary     sync.Once
	binaryPath string
	binaryErr  error
}

// Start builds a lab: namespaces, wires, addresses, NAT boxes, pods and manifests, and no agents yet. It needs the
// enclosure (see Enclose).
func Start(ctx context.Context, name string, spec Spec) (*Lab, error) {
	if !Enclosed() {
		return nil, errors.New("a lab must be started inside Enclose, which needs root")
	}
	l := &Lab{
		Name: name, Dir: filepath.Join(Folder, name), Spec: spec,
		hosts: map[string]*Host{}, agents: map[string]*Agent{},
	}
	l.life, l.end = context.WithCancel(context.WithoutCancel(ctx))
	for _, sub := range []string{"nodes", "logs", "manifests"} {
		if err := os.MkdirAll(filepath.Join(l.Dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make the lab's folder: %w", err)
		}
	}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("build lab %s: %w", name, err), l.Close())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	if l.Spec.Straight {
		return errors.Join(l.buildStraight(), l.writeManifests(), l.writeState())
	}
	if err := l.buildInternet(ctx); err != nil {
		return err
	}
	regions, ctx := errgroup.WithContext(ctx)
	for i := range l.Spec.Regions {
		r := &l.Spec.Regions[i]
		regions.Go(func() error {
			if err := l.buildBox(ctx, r); err != nil {
				return err
			}
			nodes, ctx := errgroup.WithContext(ctx)
			for j := range r.Nodes {
				nodes.Go(func() error { return l.buildNode(ctx, r, &r.Nodes[j]) })
			}
			return nodes.Wait()
		})
	}
	return errors.Join(regions.Wait(), l.writeManifests(), l.writeState())
}

// Close ends every process of the lab and removes its folder.
func (l *Lab) Close() error {
	l.end()
	l.serving.Wait()
	l.mu.Lock()
	hosts := make([]*Host, 0, len(l.hosts))
	for _, h := range l.hosts {
		hosts = append(hosts, h)
	}
	l.hosts = map[string]*Host{}
	l.mu.Unlock()
	var err error
	for _, h := range hosts {
		err = errors.Join(err, h.Close())
	}
	return errors.Join(err, os.RemoveAll(l.Dir))
}

func (l *Lab) addHost(name, state string) (*Host, error) {
	h, err := newHost(l, name, state, state != "" && l.Spec.Disks)
	if err != nil {
		return nil, err
	}
	l.keep(h)
	return h, nil
}

func (l *Lab) keep(h *Host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts[h.Name] = h
}

// Host finds a node, a pod (<node>/<pod>), a region's NAT box (<region>-nat) or the router (internet). It is nil where
// there is none.
func (l *Lab) Host(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hosts[name]
}

// Hosts lists the names of all hosts, sorted.
func (l *Lab) Hosts() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for name := range l.hosts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Nodes lists the names of all nodes in the order of the Spec.
func (l *Lab) Nodes() []string {
	var names []string
	for _, r := range l.Spec.Regions {
		for _, n := range r.Nodes {
			names = append(names, n.Name)
		}
	}
	return names
}

func (l *Lab) node(name string) (*Node, error) {
	for _, r := range l.Spec.Regions {
		for i := range r.Nodes {
			if r.Nodes[i].Name == name {
				return &r.Nodes[i], nil
			}
		}
	}
	return nil, fmt.Errorf("lab %s has no node %q", l.Name, name)
}

// Reboot switches a node off, with everything that runs on it and all that its kernel knew, and on again. Its
// /var/lib/raven stays.
func (l *Lab) Reboot(ctx context.Context, name string) error {
	for i := range l.Spec.Regions {
		r := &l.Spec.Regions[i]
		for j := range r.Nodes {
			if n := &r.Nodes[j]; n.Name == name {
				return errors.Join(l.switchOff(n), l.buildNode(ctx, r, n))
			}
		}
	}
	return fmt.Errorf("lab %s has no node %q", l.Name, name)
}

func (l *Lab) switchOff(n *Node) error {
	l.mu.Lock()
	var off []*Host
	for _, h := range l.hosts {
		if h.Node().Name == n.Name {
			off = append(off, h)
			delete(l.hosts, h.Name)
		}
	}
	delete(l.agents, n.Name)
	l.mu.Unlock()
	var err error
	for _, h := range off {
		if h.Name == n.Name {
			err = errors.Join(err, h.unplug())
		}
	}
	for _, h := range off {
		err = errors.Join(err, h.Close())
	}
	return err
}
