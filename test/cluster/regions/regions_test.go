package regions_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller"
	"github.com/ravencni/raven/pkg/ctl/rotatekey"
	"github.com/ravencni/raven/pkg/election"
	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

// TestRegionsRunByTheAPIServer goes through one life of a cluster, since it takes minutes to build one: each step leaves
// what the next one finds.
func TestRegionsRunByTheAPIServer(t *testing.T) {
	w := newWorld(t, lab.Tutorial())
	for _, step := range []struct {
		name string
		run  func(*world)
	}{
		{"every node and pod reaches every other region", everybodyTalks},
		{"a changed key costs the other peers no packet", keyChanges},
		{"the role moves away from a silent node, and traffic follows", roleMoves},
		{"a deleted node's key leaves every peer", nodeIsDeleted},
		{"a region that is cut off keeps what it has", regionIsCutOff},
		{"an outage clears nothing", outages},
	} {
		passed := t.Run(step.name, func(t *testing.T) {
			outer := w.T
			w.T = t
			defer func() { w.T = outer }()
			step.run(w)
		})
		if !passed {
			t.FailNow()
		}
	}
}

func everybodyTalks(w *world) {
	for _, name := range []string{"gw-cloud", "gw-hangzhou", "gw-qingdao"} {
		w.awaitReason(name, election.ConditionReady, election.ReasonReady)
	}
	checks.Run(w.Context(), "", w.lab, []checks.Group{checks.Reach()}, func(o checks.Outcome) {
		if o.Err != nil {
			w.Errorf("not so: %s: %v", o.Check.Says, o.Err)
		}
	})
	w.Logf("\n%s", w.kubectl("get", "gateways", "-o", "wide"))
	w.Logf("\n%s", w.kubectl("get", "tunnelendpoints"))
}

func keyChanges(w *world) {
	old := w.key("hangzhou-1")
	others, own := w.probes([2]string{"cloud-2/a", "qingdao-2/a"}), w.probes([2]string{"hangzhou-2/a", "cloud-2/a"})
	change, err := rotatekey.Run(w.within(patience), server.Admin(), "hangzhou-1")
	w.must(err)
	w.answered(others, 20, patience)
	w.answered(own, 20, patience)
	lost, account := w.finish(others)
	if lost > 0 {
		w.Errorf("the tunnel between two other regions lost %d packets: %s", lost, account)
	}
	_, ownAccount := w.finish(own)
	w.Logf("the key changed within %.1f s; others: %s; its own: %s", change.Seconds, account, ownAccount)
	if change.Before != old || change.After == old || w.key("hangzhou-1") != change.After {
		w.Errorf("it says %+v; before it was %s, and now %s is published", change, old, w.key("hangzhou-1"))
	}
	peers, err := w.peers(w.Context(), "cloud-1")
	w.must(err)
	if !slices.Contains(peers, change.After) || slices.Contains(peers, old) {
		w.Errorf("the peer has keys %v", peers)
	}

	// The hub's key, which all tunnels of this lab end at.
	all := w.probes([2]string{"cloud-2/a", "qingdao-2/a"}, [2]string{"hangzhou-2/a", "qingdao-2/a"})
	change, err = rotatekey.Run(w.within(patience), server.Admin(), "cloud-1")
	w.must(err)
	w.answered(all, 20, patience)
	_, account = w.finish(all)
	w.Logf("the hub's key changed within %.1f s: %s", change.Seconds, account)
}

// minute is how long an outage lasts, as the number of answers to probes.
const minute = 600

func outages(w *world) {
	cfg := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: controller.Namespace, Name: "raven-cfg"},
		Data: map[string]string{"enable-l3-tunnel": "true", "enable-l7-proxy": "true"}}
	w.must(w.api.Create(w.Context(), cfg))
	before := w.words()
	probes := w.probes([2]string{"hangzhou-1/a", "qingdao-2/a"}, [2]string{"qingdao-2/a", "cloud-2/a"})

	w.controller()
	w.must(w.api.Delete(w.Context(), cfg))
	w.answered(probes, minute, 2*time.Minute)
	w.controller = w.startController()
	w.awaitController()

	w.must(server.StopAPIServer())
	w.answered(probes, minute, 2*time.Minute)
	w.must(server.StartAPIServer(w.Context()))
	for _, name := range []string{"gw-cloud", "gw-hangzhou", "gw-qingdao"} {
		w.awaitReason(name, election.ConditionReady, election.ReasonReady)
	}
	w.answered(probes, int(2*grace.Seconds())*10, 2*time.Minute) // the nodes' leases are judged once more
	for _, name := range []string{"gw-cloud", "gw-hangzhou", "gw-qingdao"} {
		w.awaitReason(name, election.ConditionReady, election.ReasonReady)
	}
	if diff := cmp.Diff(before, w.words()); diff != "" {
		w.Errorf("who is active and member (-before +after):\n%s", diff)
	}
	lost, account := w.finish(probes)
	if lost > 0 {
		w.Errorf("%d packets were lost: %s", lost, account)
	}
	w.Log(account)
}

// words are what the controller says of who is active and member, by Gateway.
func (w *world) words() map[string]v1beta1.GatewayStatus {
	w.Helper()
	out := map[string]v1beta1.GatewayStatus{}
	for _, name := range []string{"gw-cloud", "gw-hangzhou", "gw-qingdao"} {
		s := w.gateway(name).Status
		out[name] = v1beta1.GatewayStatus{ActiveEndpoints: s.ActiveEndpoints, ActiveEndpoint: s.ActiveEndpoint, Nodes: s.Nodes}
	}
	return out
}
