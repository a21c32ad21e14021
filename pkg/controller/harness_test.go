package controller_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller"
	"github.com/ravencni/raven/pkg/controller/calico"
	"github.com/ravencni/raven/test/cluster"
)

// server is the control plane of all tests of this package. Each test removes what it makes.
var server *cluster.Cluster

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(cluster.Main(m, &server, cluster.Options{}, (*cluster.Cluster).Install))
}

// patience bounds a wait for something that takes a moment, on a machine that is busy with other things.
const patience = time.Minute

// rig is a test's way to the API server, as the admin, and to a controller.
type rig struct {
	*testing.T
	api client.WithWatch
	// failure of a controller, so that nobody waits for what it will not do.
	failure atomic.Pointer[error]
	// said is the log of the test's controllers.
	said said
}

// said keeps what is written.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	scheme := apiruntime.NewScheme()
	for _, add := range []func(*apiruntime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme, calico.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	api, err := client.NewWithWatch(server.Admin(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{T: t, api: api}
}

// start runs a controller with the rights that the manifests give it, and returns a function that ends it.
func (r *rig) start() (stop func()) {
	r.Helper()
	config, err := server.PodUser(r.Context(), controller.Namespace, cluster.ControllerAccount, "")
	if err != nil {
		r.Fatal(err)
	}
	return r.startWith(config)
}

func (r *rig) startWith(config *rest.Config) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(io.MultiWriter(r.Output(), &r.said), nil))
	go func() {
		err := controller.Run(ctx, config, controller.Options{MetricsAddress: "0", HealthAddress: "0", Log: log})
		if err != nil {
			r.failure.Store(&err)
		}
		ended <- err
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			r.Errorf("the controller ended: %v", err)
		}
	}
	r.Cleanup(stop)
	return stop
}

// create makes an object and removes it at the end of the test.
func (r *rig) create(o client.Object) {
	r.Helper()
	if err := r.api.Create(r.Context(), o); err != nil {
		r.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
	r.Cleanup(func() {
		zero := int64(0)
		if err := r.api.Delete(context.Background(), o, &client.DeleteOptions{GracePeriodSeconds: &zero}); err != nil && !apierrors.IsNotFound(err) {
			r.Errorf("delete %T %s: %v", o, o.GetName(), err)
		}
	})
}

// removed removes an object of no namespace at the end of the test that somebody else makes.
func (r *rig) removed(kind client.Object, name string) {
	r.Helper()
	kind.SetName(name)
	r.Cleanup(func() {
		if err := r.api.Delete(context.Background(), kind); err != nil && !apierrors.IsNotFound(err) {
			r.Errorf("delete %T %s: %v", kind, name, err)
		}
	})
}

func (r *rig) delete(o client.Object) {
	r.Helper()
	if err := r.api.Delete(r.Context(), o); err != nil {
		r.Fatalf("delete %T %s: %v", o, o.GetName(), err)
	}
}

// node makes a ready Node in a region, "" for none, with a comma list of addresses.
func (r *rig) node(name, gateway, ip string, podCIDRs ...string) *corev1.Node {
	r.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if gateway != "" {
		n.Labels = map[string]string{v1beta1.LabelGateway: gateway}
	}
	if n.Spec.PodCIDRs = podCIDRs; len(podCIDRs) > 0 {
		n.Spec.PodCIDR = podCIDRs[0]
	}
	r.create(n)
	for address := range strings.SplitSeq(ip, ",") {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
	}
	r.setReady(n, corev1.ConditionTrue)
	return n
}

func (r *rig) setReady(n *corev1.Node, status corev1.ConditionStatus) {
	r.Helper()
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, Reason: "Test", LastHeartbeatTime: metav1.Now(),
		LastTransitionTime: metav1.Now()}}
	n.ResourceVersion = ""
	if err := r.api.Status().Update(r.Context(), n); err != nil {
		r.Fatalf("set the status of Node %s: %v", n.Name, err)
	}
}

func (r *rig) label(n *corev1.Node, gateway string) {
	r.Helper()
	patch := fmt.Sprintf(`{"metadata": {"labels": {%q: %q}}}`, v1beta1.LabelGateway, gateway)
	if err := r.api.Patch(r.Context(), n, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		r.Fatalf("label Node %s: %v", n.Name, err)
	}
}

// gateway makes a Gateway of a spec in YAML.
func (r *rig) gateway(name, spec string) *v1beta1.Gateway {
	r.Helper()
	gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := yaml.UnmarshalStrict([]byte(spec), &gw.Spec); err != nil {
		r.Fatal(err)
	}
	r.create(gw)
	return gw
}

func (r *rig) getGateway(name string) *v1beta1.Gateway {
	r.Helper()
	gw := &v1beta1.Gateway{}
	if err := r.api.Get(r.Context(), client.ObjectKey{Name: name}, gw); err != nil {
		r.Fatalf("read Gateway %s: %v", name, err)
	}
	return gw
}

// await asks until the answer is empty; it says what is missing.
func (r *rig) await(what string, ask func() string) {
	r.Helper()
	r.within(patience, what, ask)
}

func (r *rig) within(limit time.Duration, what string, ask func() string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := ask()
		if missing == "" {
			return
		}
		if err := r.failure.Load(); err != nil {
			r.Fatalf("never saw %s: the controller ended: %v", what, *err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.Fatalf("never saw %s: %s", what, missing)
		}
	}
}

// awaitCondition waits for a Gateway's condition to have a reason, and returns the Gateway.
func (r *rig) awaitCondition(gateway, kind, reason string) (gw *v1beta1.Gateway) {
	r.Helper()
	r.await(fmt.Sprintf("%s of Gateway %s for reason %s", kind, gateway, reason), func() string {
		gw = r.getGateway(gateway)
		if c := meta.FindStatusCondition(gw.Status.Conditions, kind); c == nil || c.Reason != reason {
			return fmt.Sprintf("the condition is %+v", c)
		}
		return ""
	})
	return gw
}

// awaitActive waits for these to be the active nodes of a type.
func (r *rig) awaitActive(gateway string, kind v1beta1.EndpointType, nodes ...string) (gw *v1beta1.Gateway) {
	r.Helper()
	r.await(fmt.Sprintf("%v active in Gateway %s", nodes, gateway), func() string {
		gw = r.getGateway(gateway)
		if got := activeNodes(gw, kind); !slices.Equal(got, nodes) {
			return fmt.Sprintf("active are %v: %+v", got, gw.Status.Conditions)
		}
		return ""
	})
	return gw
}

func activeNodes(gw *v1beta1.Gateway, kind v1beta1.EndpointType) []string {
	var out []string
	for _, e := range gw.Status.ActiveEndpoints {
		if e.Type == kind {
			out = append(out, e.NodeName)
		}
	}
	return out
}

// events of a Gateway that is there: type, reason, note. One of the same name before it has others.
func (r *rig) events(gateway string) []string {
	r.Helper()
	return r.eventsOf("Gateway", r.getGateway(gateway).UID)
}

// eventsOf an object of no namespace: type, reason, note.
func (r *rig) eventsOf(kind string, uid types.UID) []string {
	r.Helper()
	var list eventsv1.EventList
	if err := r.api.List(r.Context(), &list, client.InNamespace(metav1.NamespaceDefault)); err != nil {
		r.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	var out []string
	for _, e := range list.Items {
		if e.Regarding.Kind == kind && e.Regarding.UID == uid {
			out = append(out, e.Type+" "+e.Reason+" "+e.Note)
		}
	}
	return out
}
