package source

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// Kube is the source that lists and watches an API server. While the server is away, everything last known stays.
type Kube struct {
	clients  *Clients
	settings Settings
	changed  notice

	mu       sync.Mutex
	held     objects
	config   topology.Config
	listed   map[string]bool   // kind -> it was listed once
	failures map[string]string // kind -> why it is not being watched now
	vanished map[string]topology.Problem
	emptied  bool
	stale    bool // input does not stand for the fields above
	input    Input
}

// The kinds that must all have been listed before the input counts as synced.
const (
	kindGateways  = "Gateways"
	kindNodes     = "Nodes"
	kindEndpoints = "TunnelEndpoints"
	kindSwitches  = "ConfigMap " + configNamespace + "/" + switchesName
	kindSettings  = "ConfigMap " + configNamespace + "/" + settingsName
)

var kinds = []string{kindGateways, kindNodes, kindEndpoints, kindSwitches, kindSettings}

// apiServer is the object that problems with the API server are told of.
const apiServer = "APIServer/kubernetes"

// NewKube makes a source of an API server. seed is the last good input, or nil.
func NewKube(clients *Clients, settings Settings, seed *Input) *Kube {
	k := &Kube{
		clients: clients, settings: settings, changed: newNotice(),
		held: newObjects(), config: settings.Defaults(),
		listed: map[string]bool{}, failures: map[string]string{}, vanished: map[string]topology.Problem{}, stale: true,
	}
	if seed != nil {
		k.held, k.config = objectsOf(seed.State), settings.override(seed.State.Config)
		k.input = *seed
		clients.dialled.seed(seed.Throws)
	}
	k.input.State.Config = k.config
	clients.dialled.onNew(func() { k.change(func() {}) })
	return k
}

// Changed implements Source.
func (k *Kube) Changed() <-chan struct{} { return k.changed }

// Run implements Source.
func (k *Kube) Run(ctx context.Context) error {
	c := k.clients
	var group sync.WaitGroup
	watch := func(kind string, lw *cache.ListWatch, of runtime.Object, s cache.ReflectorStore) {
		r := cache.NewReflectorWithOptions(k.reporting(kind, lw), of, s, cache.ReflectorOptions{Name: kind})
		group.Go(func() { r.RunWithContext(ctx) })
	}
	gateways := &store[v1beta1.Gateway, *v1beta1.Gateway]{k, kindGateways, &k.held.gateways, trimGateway, newLeaving()}
	watch(kindGateways, listWatch(c.raven, "gateways", ""), &v1beta1.Gateway{}, gateways)
	group.Go(func() { gateways.confirmDeletions(ctx, "gateways") })
	watch(kindNodes, listWatch(c.core, "nodes", ""), &corev1.Node{},
		&store[corev1.Node, *corev1.Node]{k, kindNodes, &k.held.nodes, trimNode, nil})
	endpoints := &store[v1beta1.TunnelEndpoint, *v1beta1.TunnelEndpoint]{
		k, kindEndpoints, &k.held.endpoints, trimEndpoint, newLeaving(),
	}
	watch(kindEndpoints, listWatch(c.raven, "tunnelendpoints", ""), &v1beta1.TunnelEndpoint{}, endpoints)
	group.Go(func() { endpoints.confirmDeletions(ctx, "tunnelendpoints") })
	watch(kindSwitches, listWatch(c.core, "configmaps", switchesName), &corev1.ConfigMap{},
		&configStore{k, kindSwitches, switchesName})
	watch(kindSettings, listWatch(c.core, "configmaps", settingsName), &corev1.ConfigMap{},
		&configStore{k, kindSettings, settingsName})
	group.Wait()
	return nil
}

// change runs f under the lock and gives notice.
func (k *Kube) change(f func()) {
	k.mu.Lock()
	f()
	k.stale = true
	k.mu.Unlock()
	k.changed.give()
}

// Input implements Source.
func (k *Kube) Input() Input {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stale {
		k.assemble()
		k.stale = false
	}
	return k.input
}

// assemble makes the input of what is held. Until every kind was listed once the seed stays whole, since a mixture of
// old and new would be a cluster that never was.
func (k *Kube) assemble() {
	var waiting []string
	for _, kind := range kinds {
		if !k.listed[kind] {
			why := "not listed yet"
			if f := k.failures[kind]; f != "" {
				why = f
			}
			waiting = append(waiting, kind+": "+why)
		}
	}
	in := Input{Synced: len(waiting) == 0, Throws: k.clients.dialled.addrs(), Emptied: k.emptied}
	var problems []topology.Problem
	if in.Synced {
		k.config, problems = k.settings.apply(k.config, k.held.configs)
		in.State = k.held.state(k.config)
	} else {
		in.State, in.Waiting = k.input.State, "the API server: "+strings.Join(waiting, "; ")
	}
	for _, kind := range slices.Sorted(maps.Keys(k.failures)) {
		problems = append(problems, topology.Problem{
			Object: apiServer, Reason: ReasonUnreachable,
			Message: fmt.Sprintf("%s cannot be watched: %s; what is known of them stays", kind, k.failures[kind]),
		})
	}
	for _, p := range k.vanished {
		problems = append(problems, p)
	}
	in.Problems = sortProblems(problems)
	k.input = in
}

var _ Source = (*Kube)(nil)
