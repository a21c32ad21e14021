package conformance

import (
	"maps"
	"os"
	"slices"
	"testing"
)

// table is what a driver does, by the names of Behaviours. Each finds all tunnels up and leaves them so.
var table = map[string]func(*testing.T, *world){
	"reaches-all-by-the-hub":            reachesAll,
	"writes-once":                       writesOnce,
	"makes-a-device-as-planned":         makesADevice,
	"carries-its-mtu":                   carriesItsMTU,
	"tells-how-peers-are":               tellsHowPeersAre,
	"shows-nothing-on-the-wire":         showsNothing,
	"takes-a-prefix-in":                 takesAPrefixIn,
	"outlives-its-agent":                outlivesItsAgent,
	"drops-one-peer-and-takes-it-back":  dropsOnePeer,
	"suffers-a-bad-peer":                suffersABadPeer,
	"says-who-does-not-answer":          saysWhoDoesNotAnswer,
	"moves-to-another-port":             movesToAnotherPort,
	"comes-back-after-its-process-died": comesBack,
	"ends-without-a-plan":               endsWithoutAPlan,
	"cleans-up":                         cleansUp,
}

func TestTheTableNamesEachBehaviourOnce(t *testing.T) {
	if names := slices.Sorted(maps.Keys(table)); !slices.Equal(names, slices.Sorted(slices.Values(Behaviours))) {
		t.Errorf("the table has %q, and Behaviours are %q", names, Behaviours)
	}
}

func TestEveryDriver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	for _, d := range Drivers {
		t.Run(d.Name, func(t *testing.T) {
			if !chosen(d) {
				t.Skip("not asked for: make test-ipsec and make test-kernels do, each for those that it can have")
			}
			w := newWorld(t, subjectOf(t, d))
			for _, h := range w.all() {
				h.t = t
				h.apply()
			}
			for _, edge := range []*host{w.east, w.west} {
				t.Logf("%s reaches the hub after %v", edge.name, edge.awaitPods(w.hub))
			}
			for _, name := range Behaviours {
				if !t.Run(name, func(t *testing.T) { w.in(t, func() { table[name](t, w) }) }) {
					return // what it left would fail the others
				}
			}
		})
	}
}

// in lets the hosts speak of failures to a subtest while f runs.
func (w *world) in(t *testing.T, f func()) {
	outer := w.t
	for _, h := range w.all() {
		h.t = t
	}
	defer func() {
		for _, h := range w.all() {
			h.t = outer
		}
	}()
	f()
}
