package controller_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller"
)

func TestANodeThatIsDegradedGetsOneEventForEachChange(t *testing.T) {
	r := newRig(t)
	const name = "degraded-1"
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	r.create(node)
	te := &v1beta1.TunnelEndpoint{ObjectMeta: metav1.ObjectMeta{Name: name}}
	r.create(te)
	r.start()
	var want []string
	says := func(status v1beta1.TunnelEndpointStatus, events ...string) {
		t.Helper()
		te.Status = status
		if err := r.api.Status().Update(t.Context(), te); err != nil {
			t.Fatal(err)
		}
		want = append(want, events...)
		r.await("the events of "+name, func() string {
			if got := r.eventsOf("Node", node.UID); !slices.Equal(got, want) {
				return fmt.Sprint(cmp.Diff(want, got))
			}
			return ""
		})
	}
	baseline := v1beta1.TunnelEndpointStatus{Datapath: v1beta1.DatapathBaseline, DatapathReason: "no BTF"}
	says(v1beta1.TunnelEndpointStatus{Datapath: v1beta1.DatapathAccelerated})
	says(baseline, "Warning "+controller.EventDegraded+" the kernel's tables forward everything, without acceleration: no BTF")
	baseline.UnderlayMTU = 1500 // another change
	baseline.Problems = []v1beta1.Problem{
		{Object: "CNI/10-pods.conflist", Reason: "CNIConfigRewritten", Message: "somebody rewrites it"},
		{Object: "Gateway/gw-bad", Reason: "BadCIDR", Message: "every node says so"},
	}
	says(baseline, "Warning CNIConfigRewritten CNI/10-pods.conflist: somebody rewrites it")
	baseline.Problems[0].Message = "somebody rewrites it, put back 2 times" // the same problem
	says(baseline)
	says(v1beta1.TunnelEndpointStatus{Datapath: v1beta1.DatapathAccelerated}, "Normal "+controller.EventRestored+" accelerated again")
}
