package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

func TestTheStatusIsTheNodesOwnWord(t *testing.T) {
	b := newBench(t, "a1")
	seen := netip.MustParseAddrPort("203.0.113.7:31000")
	b.wireguard.peers = []tunnel.PeerStatus{
		{Node: "b1", State: tunnel.StateUp, Endpoint: seen},
		{Node: "c1", State: tunnel.StateConnecting, Message: "no handshake yet"},
	}
	b.pass(cluster())
	got := endpointStatus(b.view(), nil)
	want := v1beta1.TunnelEndpointStatus{
		Gateway:           "a",
		Tunnels:           []v1beta1.TunnelPort{{Driver: "wireguard", Port: 4500, PublicKey: "key of wireguard"}},
		Addresses:         []string{"10.0.1.1"},
		ObservedAddresses: []v1beta1.ObservedAddress{{NodeName: "b1", Address: seen.String()}},
		UnderlayMTU:       1500,
		Datapath:          v1beta1.DatapathAccelerated,
		PeersUp:           "1/2",
		Peers: []v1beta1.PeerHealth{
			{NodeName: "b1", State: "up"}, {NodeName: "c1", State: "connecting", Message: "no handshake yet"},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAMemberPublishesItsKeyTooAndANodeOfNoRegionDoesNot(t *testing.T) {
	b := newBench(t, "b2")
	b.pass(cluster())
	if got := endpointStatus(b.view(), nil); len(got.Tunnels) != 1 || got.Gateway != "b" {
		t.Errorf("a member says %+v", got)
	}
	b = newBench(t, "stranger")
	in := cluster()
	in.State.Nodes = append(in.State.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "stranger"}})
	b.pass(in)
	if got := endpointStatus(b.view(), nil); len(got.Tunnels) != 0 || got.Gateway != "" || got.Datapath != v1beta1.DatapathOff {
		t.Errorf("a node of no region says %+v", got)
	}
}

func TestAKeyThatCannotBeReadStaysPublished(t *testing.T) {
	b := newBench(t, "a1")
	b.wireguard.keyErr = errors.New("the key file is damaged")
	in := cluster()
	b.pass(in) // a restarted agent, whose own TunnelEndpoint the cluster still has
	want := in.State.Endpoints[0].Status.Tunnels[0].PublicKey
	if got := endpointStatus(b.view(), nil).Tunnels; len(got) != 1 || got[0].PublicKey != want {
		t.Errorf("published %+v, want the key %s", got, want)
	}
	if log := b.log.take(); !strings.Contains(log, "the key file is damaged") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

func TestTheUnderlaysMTUStaysPublishedWhileTheDeviceCannotBeFound(t *testing.T) {
	b := newBench(t, "a1")
	b.pass(cluster())
	b.resolveErr = errors.New("no device holds 10.0.1.1")
	b.pass(cluster())
	if got := endpointStatus(b.view(), nil); got.UnderlayMTU != 1500 {
		t.Errorf("published %d, want what was measured before", got.UnderlayMTU)
	}
	b = newBench(t, "a1", func(p *Parts) {
		p.UnderlayMTU = func(...netip.Addr) (int, error) { return 0, errors.New("no device") }
	})
	b.resolveErr = errors.New("no device holds 10.0.1.1")
	in := cluster()
	in.State.Endpoints[0].Status.UnderlayMTU = 1400
	b.pass(in) // a restarted agent, whose own TunnelEndpoint the cluster still has
	if got := endpointStatus(b.view(), nil); got.UnderlayMTU != 1400 {
		t.Errorf("after a restart published %d, want what the last run published", got.UnderlayMTU)
	}
}

func TestFiguresInAPeersMessageAreNoChange(t *testing.T) {
	v := func(state tunnel.State, message string) *view.View {
		return &view.View{Plan: &topology.Plan{}, Peers: []tunnel.PeerStatus{{Node: "p", State: state, Message: message}}}
	}
	first := endpointStatus(v(tunnel.StateConnecting, "sent 5 bytes"), nil)
	second := endpointStatus(v(tunnel.StateConnecting, "sent 6 bytes"), &first)
	if d := cmp.Diff(first, second); d != "" {
		t.Error(d)
	}
	third := endpointStatus(v(tunnel.StateDown, "sent 7 bytes"), &second)
	if third.Peers[0].Message != "sent 7 bytes" || third.Peers[0].State != "down" {
		t.Errorf("a new state says %+v", third.Peers)
	}
}

func TestWhatANodeNamesStaysSmallAndItsOwnComesFirst(t *testing.T) {
	b := newBench(t, "a1")
	in := cluster()
	for i := range 10000 {
		in.Problems = append(in.Problems, topology.Problem{Object: fmt.Sprintf("File/%d", i), Reason: "R", Message: "m"})
	}
	b.filter.answer(0, errors.New("no nft"))
	b.pass(in)
	got := endpointStatus(b.view(), nil).Problems
	if len(got) != maxProblems+1 || len(b.view().Problems) != maxProblems+1 || strings.Count(b.log.take(), "msg=problem") != maxProblems+1 {
		t.Errorf("published %d, in the view %d", len(got), len(b.view().Problems))
	}
	if last := got[len(got)-1]; got[0].Object != "Applier/filter" || last.Object != "Node/a1" || !strings.HasPrefix(last.Message, "and 9901 more") {
		t.Errorf("the first one is %+v, the last one %+v", got[0], last)
	}
}

func TestANodeCountsTheProblemsOfOtherRegionsWithoutNamingThem(t *testing.T) {
	in := cluster()
	in.State.Nodes[4].Spec.PodCIDRs = []string{"10.3.1.0/33"} // c1's, of region c
	for node, names := range map[string]bool{"a1": true, "a2": false, "b1": false, "b2": false, "c1": true} {
		b := newBench(t, node)
		b.pass(in)
		v := b.view()
		status, log := endpointStatus(v, nil), b.log.take()
		if (len(v.Problems) > 0) != names || (len(status.Problems) > 0) != names || strings.Contains(log, "Node/c1") != names {
			t.Errorf("%s names %v, publishes %v and logs\n%s", node, v.Problems, status.Problems, log)
		}
		if !names && (v.Elsewhere == 0 || strings.Count(log, "problems elsewhere") != 1) {
			t.Errorf("%s counts %d and logs\n%s", node, v.Elsewhere, log)
		}
	}
}
