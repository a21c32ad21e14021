package controller

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/ravencni/raven/pkg/controller/inventory"
	"github.com/ravencni/raven/pkg/election"
	"github.com/ravencni/raven/pkg/topology"
)

// pause between the first change and the look at the whole cluster that it causes: one look for many changes.
const pause = 300 * time.Millisecond

// analyst looks at the whole cluster with the planner's eyes, in the background, and remembers what it found.
type analyst struct {
	inventory *inventory.Inventory
	// serviceCIDRs are the cluster's service ranges, as the agents have them.
	serviceCIDRs []netip.Prefix
	// tell is called with the Gateways for which something else was found than before.
	tell func(gateways []string)
	log  *slog.Logger
	wake chan struct{}

	mu       sync.Mutex
	found    map[string]election.Findings
	foreign  string
	settings topology.Config
	// inUse is the driver that counted at the last look.
	inUse string
	busy  time.Duration
}

func newAnalyst(v *inventory.Inventory, serviceCIDRs []netip.Prefix, log *slog.Logger) *analyst {
	return &analyst{inventory: v, serviceCIDRs: serviceCIDRs, log: log, wake: make(chan struct{}, 1),
		found: map[string]election.Findings{}, settings: topology.Config{ForwardNodeIP: true}}
}

// notice asks for a look soon.
func (a *analyst) notice() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Start implements manager.Runnable.
func (a *analyst) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		}
		// A look that takes long is taken less often, so that it costs at most a fifth of a processor.
		timer := time.NewTimer(max(pause, 4*a.lasted()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		a.analyse()
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (a *analyst) NeedLeaderElection() bool { return true }

func (a *analyst) lasted() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.busy
}

// analyse takes one look.
func (a *analyst) analyse() {
	begin := time.Now()
	state := a.inventory.State()
	state.Config = a.config()
	if state.Config.Driver == "" {
		state.Config.Driver = driverInUse(state.Endpoints)
	}
	plan := topology.Compile(state, "", topology.Local{})
	found := findings(plan, func(node string) string {
		home, _ := a.inventory.GatewayOf(node)
		return home
	})
	countProblems(plan.Problems)

	a.mu.Lock()
	changed := names(found, a.found)
	if a.inUse != state.Config.Driver {
		changed = a.inventory.Gateways() // whether a key is wanted has changed for all
	}
	a.found, a.inUse, a.busy = found, state.Config.Driver, time.Since(begin)
	a.mu.Unlock()
	a.told(changed)
}

// names of Gateways for which the two differ.
func names(now, before map[string]election.Findings) []string {
	out := map[string]bool{}
	for name, f := range now {
		out[name] = !equality.Semantic.DeepEqual(f, before[name])
	}
	for name := range before {
		if _, ok := now[name]; !ok {
			out[name] = true
		}
	}
	maps.DeleteFunc(out, func(_ string, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(out))
}

func (a *analyst) told(changed []string) {
	if len(changed) > 0 && a.tell != nil {
		a.tell(changed)
	}
}

// findings for one Gateway.
func (a *analyst) findings(gateway string) election.Findings {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.found[gateway]
	f.Foreign, f.KeyWanted = a.foreign, cmp.Or(a.settings.Driver, a.inUse) == topology.DriverWireGuard
	return f
}

// setForeign takes what is known of other controllers; empty: there is none.
func (a *analyst) setForeign(text string) {
	a.mu.Lock()
	changed := a.foreign != text
	a.foreign = text
	a.mu.Unlock()
	if changed {
		a.told(a.inventory.Gateways())
	}
}

// setSettings takes the data of raven-agent-config, nil where there is none, as far as it matters here, and returns what
// is wrong with it. A missing key leaves the last known value, as it does with the agents; but which driver they are
// left with is their word, since their flags count, too.
func (a *analyst) setSettings(data map[string]string) (wrong []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if v, ok := data["vpn-driver"]; !ok {
		a.settings.Driver = ""
	} else {
		// Only WireGuard's keys are looked at here; the agents judge the rest.
		switch driver := strings.ToLower(strings.TrimSpace(v)); driver {
		case topology.DriverWireGuard, topology.DriverIPsec, topology.DriverPlain:
			a.settings.Driver = driver
		case "libreswan":
			a.settings.Driver = topology.DriverIPsec
		default:
			wrong = append(wrong, fmt.Sprintf("vpn-driver is %q: use wireguard or ipsec", v))
		}
	}
	if v, ok := data["forward-node-ip"]; ok {
		if on, err := strconv.ParseBool(strings.ToLower(strings.TrimSpace(v))); err != nil {
			wrong = append(wrong, fmt.Sprintf(`forward-node-ip is %q: write "true" or "false"`, v))
		} else {
			a.settings.ForwardNodeIP = on
		}
	}
	if v, ok := data["tunnel-bind-addr"]; ok {
		_, text, err := net.SplitHostPort(strings.TrimSpace(v))
		if port, parse := strconv.ParseUint(text, 10, 16); err == nil && parse == nil && port > 0 {
			a.settings.TunnelPort = int(port)
		} else {
			wrong = append(wrong, fmt.Sprintf(`tunnel-bind-addr is %q: write it like ":4500"`, v))
		}
	}
	return wrong
}

// tunnelPort is where tunnels listen whose endpoint names no port; 0: the default.
func (a *analyst) tunnelPort() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settings.TunnelPort
}

// config for the planner; without a driver where raven-agent-config names none.
func (a *analyst) config() topology.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.settings
	c.EnableTunnel, c.ServiceCIDRs = true, a.serviceCIDRs
	return c
}
