package controlplane

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// watched is what a watch of Gateways carried, as every agent holds one.
type watched struct{ events, bytes, strangers int }

// measure makes candidates unready, one after the other, and waits each time for the status that says so.
func measure(t *testing.T, api client.WithWatch) ([]time.Duration, watched) {
	t.Helper()
	var list v1beta1.GatewayList
	if err := api.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	w, err := api.Watch(t.Context(), &v1beta1.GatewayList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var seen watched
	var out []time.Duration
	for i := range changes {
		name, n := gatewayName(i*(gateways/changes)), newNode(i*(gateways/changes), 0)
		n.Status.Conditions[0].Status = corev1.ConditionFalse
		begin := time.Now()
		if err := api.Status().Update(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		limit := time.NewTimer(time.Minute)
		for done := false; !done; {
			select {
			case e := <-w.ResultChan():
				gw, ok := e.Object.(*v1beta1.Gateway)
				if !ok {
					t.Fatalf("the watch ended: %v", e.Object)
				}
				text, err := json.Marshal(gw)
				if err != nil {
					t.Fatal(err)
				}
				seen.events, seen.bytes = seen.events+1, seen.bytes+len(text)
				if gw.Name != name {
					seen.strangers++
				}
				done = gw.Name == name && meta.IsStatusConditionFalse(gw.Status.Conditions, "TunnelElected")
			case <-limit.C:
				t.Fatalf("Gateway %s never said that its node is not ready", name)
			}
		}
		limit.Stop()
		out = append(out, time.Since(begin))
	}
	return out, seen
}
