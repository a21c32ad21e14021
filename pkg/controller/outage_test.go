package controller_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/election"
)

func TestAnAPIServerThatGoesAndComesBackClearsNothing(t *testing.T) {
	r := newRig(t)
	r.start()
	a := r.node("away-a", "away", "192.168.40.1", "10.40.1.0/24")
	r.node("away-b", "away", "192.168.40.2", "10.40.2.0/24")
	r.gateway("away", `{endpoints: [{nodeName: away-a, underNAT: true}, {nodeName: away-b, underNAT: true}]}`)
	before := r.awaitCondition("away", election.ConditionReady, election.ReasonReady)
	if err := server.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	if err := server.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.Status, r.getGateway("away").Status); diff != "" {
		t.Errorf("status (-before +after):\n%s", diff)
	}
	r.setReady(a, corev1.ConditionFalse)
	r.awaitCondition("away", election.ConditionTunnelElected, election.ReasonChangeDelayed)
	r.delete(a)
	r.awaitActive("away", tunnel, "away-b")
}
