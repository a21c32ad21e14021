package toggling

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller"
	"github.com/ravencni/raven/test/cluster"
)

var server *cluster.Cluster

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(cluster.Main(m, &server, cluster.Options{}, (*cluster.Cluster).Install))
}

const (
	// interval is the promise: at most one change of role in it.
	interval = 30 * time.Second
	// stamps is how far the controller's notes of two changes may be apart from the times of their events.
	stamps = time.Second
)

func TestANodeThatTogglesEverySecondMovesTheRoleOnceInHalfAMinute(t *testing.T) {
	scheme := apiruntime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	must(t, v1beta1.AddToScheme(scheme))
	api, err := client.New(server.Admin(), client.Options{Scheme: scheme})
	must(t, err)
	run(t)
	toggler := node(t, api, "toggle-a")
	node(t, api, "toggle-b")
	gateway := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "toggle"},
		Spec: v1beta1.GatewaySpec{Endpoints: []v1beta1.Endpoint{{NodeName: "toggle-a"}, {NodeName: "toggle-b"}}}}
	create(t, api, gateway)

	ctx, cancel := context.WithTimeout(t.Context(), 4*interval)
	defer cancel()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for turns := 0; ; turns++ {
		changes := roleChanges(ctx, t, api, gateway.UID)
		if len(changes) > 0 { // a has the role
			status := corev1.ConditionTrue
			if turns%2 == 0 {
				status = corev1.ConditionFalse
			}
			setReady(ctx, t, api, toggler, status)
		}
		if len(changes) > 1 {
			if apart := changes[1].Sub(changes[0]); apart < interval-stamps || len(changes) > 2 {
				t.Errorf("the role changed at %v", changes)
			} else {
				t.Logf("the role moved %.1f s after it was given, in turn %d", apart.Seconds(), turns)
			}
			return
		}
		select {
		case <-second.C:
		case <-ctx.Done():
			t.Fatalf("the role never moves, so that this tries nothing: changes at %v", changes)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create makes an object and removes it at the end of the test.
func create(t *testing.T, api client.Client, o client.Object) {
	t.Helper()
	must(t, api.Create(t.Context(), o))
	t.Cleanup(func() { must(t, api.Delete(context.Background(), o)) })
}

// run runs the controller until the test ends.
func run(t *testing.T) {
	config, err := server.PodUser(t.Context(), controller.Namespace, cluster.ControllerAccount, "")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	go func() {
		ended <- controller.Run(ctx, config, controller.Options{MetricsAddress: "0", HealthAddress: "0", Log: log})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func node(t *testing.T, api client.Client, name string) *corev1.Node {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1beta1.LabelGateway: "toggle"}}}
	create(t, api, n)
	setReady(t.Context(), t, api, n, corev1.ConditionTrue)
	return n
}

// setReady leaves the time since when it is so in the past: a node that has just become unready keeps its role for some
// seconds anyway, and here the interval alone is to hold it.
func setReady(ctx context.Context, t *testing.T, api client.Client, n *corev1.Node, status corev1.ConditionStatus) {
	t.Helper()
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, Reason: "Test",
		LastTransitionTime: metav1.NewTime(time.Now().Add(-time.Hour))}}
	n.ResourceVersion = ""
	must(t, api.Status().Update(ctx, n))
}

// roleChanges are the times of the Gateway's events, each of which is one change of its role.
func roleChanges(ctx context.Context, t *testing.T, api client.Client, gateway types.UID) (times []time.Time) {
	t.Helper()
	var list eventsv1.EventList
	must(t, api.List(ctx, &list, client.InNamespace(metav1.NamespaceDefault)))
	for _, e := range list.Items {
		if e.Regarding.UID == gateway {
			times = append(times, e.EventTime.Time)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}
