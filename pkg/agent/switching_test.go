package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

var bothUp = []tunnel.PeerStatus{{Node: "b1", State: tunnel.StateUp}, {Node: "c1", State: tunnel.StateUp}}

// switching begins a switch from WireGuard to another driver on the gateway a1.
func (b *bench) switching() source.Input {
	b.t.Helper()
	b.wireguard.peers = bothUp
	b.pass(cluster())
	in := cluster()
	in.State.Config.Driver = "plain"
	if calls := b.pass(in); strings.Contains(calls, "Cleanup") || b.view().Driver != "wireguard" {
		b.t.Fatalf("the new driver took over before it had a tunnel: %q, driver %s", calls, b.view().Driver)
	}
	return in
}

// offered are the drivers and ports that the node publishes, in order.
func (b *bench) offered() []v1beta1.TunnelPort {
	s := endpointStatus(b.view(), nil)
	for i := range s.Tunnels {
		s.Tunnels[i].PublicKey = ""
	}
	return s.Tunnels
}

// flipped brings the new driver's tunnels up and waits until they have stood.
func (b *bench) flipped(in source.Input) {
	b.t.Helper()
	b.plain.peers = bothUp
	b.pass(in)
	if b.view().Driver != "wireguard" {
		b.t.Error("traffic goes by tunnels that have come up this moment")
	}
	b.agent.other.steady = time.Now().Add(-switchSteady)
	b.pass(in)
}

func TestASwitchOfDriversKeepsTheOldTunnelsUntilNoPeerUsesThem(t *testing.T) {
	b := newBench(t, "a1")
	in := b.switching()
	if got := b.offered(); !slices.Equal(got, []v1beta1.TunnelPort{{Driver: "wireguard", Port: 4500}, {Driver: "plain", Port: 51820, Second: true}}) {
		t.Errorf("the node offers %+v", got)
	}
	if h := b.view().Host; h.Tunnel.Name != "raven-wireguard" || len(h.Also) != 1 || h.Also[0].Name != "raven-plain" {
		t.Errorf("the devices are %+v and %+v", h.Tunnel, h.Also)
	}
	b.plain.peers = bothUp[:1]
	b.pass(in)
	b.pass(in)
	if !b.agent.other.steady.IsZero() || !b.log.has("missing=c1") {
		t.Errorf("a peer without the new tunnel is not waited for: %s", b.log.take())
	}

	b.flipped(in)
	if h := b.view().Host; h.Tunnel.Name != "raven-plain" || len(h.Also) != 1 || h.Also[0].Name != "raven-wireguard" {
		t.Errorf("the devices are %+v and %+v", h.Tunnel, h.Also)
	}
	if got := b.offered(); !slices.Equal(got, []v1beta1.TunnelPort{{Driver: "plain", Port: 51820, Second: true}, {Driver: "wireguard", Port: 4500}}) {
		t.Errorf("the node offers %+v", got)
	}
	b.agent.other.began = time.Now().Add(-farewellLeast)
	if calls := b.pass(in); strings.Contains(calls, "Cleanup") {
		t.Errorf("the old driver goes while peers use it: %q", calls)
	}
	for _, te := range in.State.Endpoints {
		te.Status.Tunnels[0], te.Status.Tunnels[1] = te.Status.Tunnels[1], te.Status.Tunnels[0]
		if te.Name == "b1" {
			if calls := b.pass(in); strings.Contains(calls, "Cleanup") {
				t.Errorf("the old driver goes while a gateway uses it: %q", calls)
			}
		}
	}
	if calls := b.pass(in); !strings.HasPrefix(calls, "wireguard.Cleanup") || len(b.view().Host.Also) != 0 {
		t.Errorf("the old driver stays though no peer uses it: %q", calls)
	}
	if got := b.offered(); !slices.Equal(got, []v1beta1.TunnelPort{{Driver: "plain", Port: 51820, Second: true}}) {
		t.Errorf("the node offers %+v", got)
	}

	// An agent that starts now moves no port, and the way back takes the one that is free.
	next := newBench(t, "a1")
	for _, te := range in.State.Endpoints {
		te.Status.Tunnels[0].Port, te.Status.Tunnels[0].Second = 51820, true
	}
	next.pass(in)
	if got := next.offered(); !slices.Equal(got, []v1beta1.TunnelPort{{Driver: "plain", Port: 51820, Second: true}}) {
		t.Errorf("the next agent offers %+v", got)
	}
	in.State.Config.Driver = "wireguard"
	b.pass(in)
	if got := b.offered(); !slices.Equal(got, []v1beta1.TunnelPort{{Driver: "plain", Port: 51820, Second: true}, {Driver: "wireguard", Port: 4500}}) {
		t.Errorf("on the way back the node offers %+v", got)
	}
}

func TestASwitchThatIsTakenBackEndsTheNewDriverOrGoesBackToTheOld(t *testing.T) {
	b := newBench(t, "a1")
	in := b.switching()
	if calls := b.pass(cluster()); !strings.HasPrefix(calls, "plain.Cleanup") || b.agent.other != nil || b.view().Driver != "wireguard" {
		t.Errorf("before it took over: %q", calls)
	}
	b.pass(in)
	b.flipped(in)
	if b.pass(cluster()); b.view().Driver != "plain" || b.agent.other.old {
		t.Errorf("the old driver is not taken back")
	}
	b.agent.other.steady = time.Now().Add(-switchSteady)
	if calls := b.pass(cluster()); strings.Contains(calls, "Cleanup") || b.view().Driver != "wireguard" {
		t.Errorf("on the way back: %q, driver %s", calls, b.view().Driver)
	}
	if got := b.offered(); got[0] != (v1beta1.TunnelPort{Driver: "wireguard", Port: 4500}) {
		t.Errorf("the node offers %+v", got)
	}
}

func TestANewDriverThatDoesNotComeUpTakesTheOldOnesPlaceInTheEnd(t *testing.T) {
	b := newBench(t, "a1")
	in := b.switching()
	b.agent.other.began = time.Now().Add(-switchPatience)
	if calls := b.pass(in); !strings.HasPrefix(calls, "wireguard.Cleanup") || b.view().Driver != "plain" || b.agent.other != nil {
		t.Errorf("it made %q", calls)
	}
	if got := b.offered(); !slices.Equal(got, []v1beta1.TunnelPort{{Driver: "plain", Port: 4500}}) {
		t.Errorf("the node offers %+v", got)
	}
}

func TestWithoutATunnelThereIsNothingToLoseByASwitch(t *testing.T) {
	b := newBench(t, "a2")
	b.wireguard.peers = bothUp
	b.pass(cluster())
	in := cluster()
	in.State.Config.Driver = "plain"
	if calls := b.pass(in); !strings.HasPrefix(calls, "wireguard.Cleanup") || b.view().Driver != "plain" {
		t.Errorf("a member: %q", calls)
	}
	if role := b.view().Plan.Role; role != topology.RoleMember {
		t.Errorf("a2 is %s", role)
	}
}
