package regions_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller"
	"github.com/ravencni/raven/test/cluster"
	"github.com/ravencni/raven/test/lab"
)

// world is the tutorial's regions, run by the API server.
type world struct {
	*testing.T
	lab    *lab.Lab
	api    client.WithWatch
	hearts *hearts
	log    *slog.Logger
	// controller ends the controller that runs.
	controller func()
}

const (
	// outside is where the regions reach the API server: the router's address on the cloud's public wire.
	outside = "203.0.113.1:6443"
	// patience bounds what takes a moment; a change of role waits for the nodes' grace and for the damping of elections.
	patience, rolePatience = time.Minute, 3 * time.Minute
)

// newWorld builds the regions of a spec, applies their manifests, and starts hearts, controller and agents. In hangzhou
// both nodes may be elected.
func newWorld(t *testing.T, spec lab.Spec) *world {
	t.Helper()
	if !lab.Enclosed() {
		t.Skip("needs root to make namespaces")
	}
	w := &world{T: t, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	scheme := apiruntime.NewScheme()
	w.must(clientgoscheme.AddToScheme(scheme))
	w.must(v1beta1.AddToScheme(scheme))
	var err error
	w.api, err = client.NewWithWatch(server.Admin(), client.Options{Scheme: scheme})
	w.must(err)

	w.lab, err = lab.Start(t.Context(), "regions", spec)
	w.must(err)
	t.Cleanup(func() { w.check(w.lab.Close()) })
	t.Cleanup(w.showLogs)
	at, err := url.Parse(server.Admin().Host)
	w.must(err)
	d, err := openDoor(w.lab.Host(lab.Internet), outside, at.Host)
	w.must(err)
	t.Cleanup(func() { w.check(d.close()) })

	t.Cleanup(w.forget)
	w.kubectl("create", "-f", w.lab.Manifests())
	w.kubectl("patch", "gateway", "gw-hangzhou", "--type=json", "-p",
		`[{"op": "add", "path": "/spec/endpoints/-", "value": {"nodeName": "hangzhou-2", "type": "tunnel", "port": 4500, "underNAT": true}}]`)
	w.hearts = startHearts(w.api, w.log, w.lab.Nodes())
	t.Cleanup(w.hearts.end)
	w.controller = w.startController()
	t.Cleanup(func() { w.controller() })

	w.must(w.lab.StartAgents(w.within(2*patience), lab.AgentOptions{Kubeconfig: w.kubeconfig}))
	w.must(w.lab.ServeEcho(t.Context()))
	return w
}

// forget removes what the API server knows of the regions, so that another test may begin anew.
func (w *world) forget() {
	for _, kind := range []string{"gateways", "nodes", "tunnelendpoints", "csr", "pods"} {
		args := []string{"delete", kind, "--all", "--wait=false"}
		if kind == "pods" {
			args = append(args, "--all-namespaces", "--force", "--grace-period=0")
		}
		_, err := server.Kubectl(context.Background(), "", args...)
		w.check(err)
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Error(err)
	}
}

// within is the test's context, with a limit.
func (w *world) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), limit)
	w.Cleanup(cancel)
	return ctx
}

func (w *world) showLogs() {
	for _, node := range w.lab.Nodes() {
		if a := w.lab.Agent(node); a != nil && w.Failed() {
			w.Logf("log of the agent on %s ends with:\n%s", node, a.LogTail(25))
		}
	}
}

func (w *world) kubectl(args ...string) string {
	w.Helper()
	out, err := server.Kubectl(w.Context(), "", args...)
	w.must(err)
	return out
}

// kubeconfig is the file of the agent on a node: what its Pod would be given, and the way through the router.
func (w *world) kubeconfig(node string) string {
	w.Helper()
	path := filepath.Join(w.lab.Dir, node+".kubeconfig")
	if _, err := os.Stat(path); err == nil {
		return path // of the agent that ran before
	}
	config, err := server.PodUser(w.Context(), controller.Namespace, cluster.AgentAccount, node)
	w.must(err)
	config.Host, config.ServerName = "https://"+outside, "localhost"
	content, err := cluster.Kubeconfig(config)
	w.must(err)
	w.must(os.WriteFile(path, content, 0o600))
	return path
}

// startController runs the real controller with the rights that the manifests give it, until the returned function is
// called.
func (w *world) startController() (stop func()) {
	w.Helper()
	config, err := server.PodUser(w.Context(), controller.Namespace, cluster.ControllerAccount, "")
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- controller.Run(ctx, config, controller.Options{MetricsAddress: "0", HealthAddress: "0", Log: w.log})
	}()
	stopped := false
	return func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		w.check(<-ended)
	}
}

// awaitController waits until the controller works: it deletes the TunnelEndpoint of a Node that does not exist.
func (w *world) awaitController() {
	w.Helper()
	te := &v1beta1.TunnelEndpoint{ObjectMeta: metav1.ObjectMeta{Name: "nobodys"}}
	w.must(w.api.Create(w.Context(), te))
	w.await(patience, "the controller to work", func(ctx context.Context) error {
		if err := w.api.Get(ctx, client.ObjectKeyFromObject(te), te); !apierrors.IsNotFound(err) {
			return fmt.Errorf("TunnelEndpoint %s is there (%v)", te.Name, err)
		}
		return nil
	})
}

func (w *world) gateway(name string) *v1beta1.Gateway {
	w.Helper()
	gw := &v1beta1.Gateway{}
	w.must(w.api.Get(w.Context(), client.ObjectKey{Name: name}, gw))
	return gw
}

// await asks until the answer is good.
func (w *world) await(limit time.Duration, what string, ask func(context.Context) error) {
	w.Helper()
	w.must(lab.Await(w.within(limit), what, ask))
}

// awaitReason waits until a condition of a Gateway has a reason.
func (w *world) awaitReason(gateway, kind, reason string) {
	w.Helper()
	w.await(rolePatience, fmt.Sprintf("condition %s of Gateway %s with reason %s", kind, gateway, reason), func(ctx context.Context) error {
		gw := &v1beta1.Gateway{}
		if err := w.api.Get(ctx, client.ObjectKey{Name: gateway}, gw); err != nil {
			return err
		}
		if c := meta.FindStatusCondition(gw.Status.Conditions, kind); c == nil || c.Reason != reason {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})
}

// awaitRole waits until a node holds its region's tunnels by the controller's word.
func (w *world) awaitRole(gateway, node string) {
	w.Helper()
	w.await(rolePatience, node+" as the tunnel endpoint of "+gateway, func(ctx context.Context) error {
		gw := &v1beta1.Gateway{}
		if err := w.api.Get(ctx, client.ObjectKey{Name: gateway}, gw); err != nil {
			return err
		}
		if e := gw.Status.ActiveEndpoint; e == nil || e.NodeName != node {
			return fmt.Errorf("the status is %+v", gw.Status)
		}
		return nil
	})
}

// ready tells whether the Node says that it is.
func (w *world) ready(ctx context.Context, node string) bool {
	n := &corev1.Node{}
	if err := w.api.Get(ctx, client.ObjectKey{Name: node}, n); err != nil {
		return false
	}
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// startAgent starts the agent of a node that was stopped, and waits until the kernel is as planned.
func (w *world) startAgent(node string) {
	w.Helper()
	a, err := w.lab.StartAgent(w.Context(), w.lab.Options(), node)
	w.must(err)
	w.await(patience, "the agent on "+node+" to be ready", func(ctx context.Context) error {
		_, err := a.Get(ctx, "http://127.0.0.1:10275/readyz")
		return err
	})
}

// holders are the nodes that have a key as a peer's.
func (w *world) holders(ctx context.Context, key string) (nodes []string, err error) {
	for _, node := range w.lab.Nodes() {
		peers, err := w.peers(ctx, node)
		if err != nil {
			return nil, err
		}
		if slices.Contains(peers, key) {
			nodes = append(nodes, node)
		}
	}
	return nodes, nil
}

// probes ping between pods, in both families, ten times a second.
func (w *world) probes(pairs ...[2]string) map[string]*lab.Prober {
	w.Helper()
	const every = 100 * time.Millisecond
	out := map[string]*lab.Prober{}
	for _, p := range pairs {
		for _, to := range w.addresses(p[1]) {
			prober, err := w.lab.Host(p[0]).Probe(w.Context(), to, every)
			w.must(err)
			out[p[0]+" -> "+to.String()] = prober
		}
	}
	return out
}

// finish ends probes and returns what was lost, and a line on all.
func (w *world) finish(probes map[string]*lab.Prober) (lost int, account string) {
	w.Helper()
	var lines []string
	for name, p := range probes {
		r, err := p.Stop(w.Context())
		w.check(err)
		lost += len(r.Lost)
		lines = append(lines, name+": "+r.String())
	}
	slices.Sort(lines)
	return lost, strings.Join(lines, "; ")
}

// answered waits until each probe had n more answers.
func (w *world) answered(probes map[string]*lab.Prober, n int, limit time.Duration) {
	w.Helper()
	ctx := w.within(limit)
	errs := make(chan error, len(probes))
	for _, p := range probes {
		go func() { errs <- p.AwaitAnswers(ctx, n) }()
	}
	var err error
	for range probes {
		err = errors.Join(err, <-errs)
	}
	w.must(err)
}

// talk waits until each of the pairs can.
func (w *world) talk(pairs ...[2]string) {
	w.Helper()
	for _, p := range pairs {
		for _, to := range w.addresses(p[1]) {
			w.await(patience, p[0]+" to reach "+to.String(), func(ctx context.Context) error {
				_, err := w.lab.Host(p[0]).Ping(ctx, to, 1)
				return err
			})
		}
	}
}

// addresses of a pod.
func (w *world) addresses(pod string) []netip.Addr {
	w.Helper()
	for _, r := range w.lab.Spec.Regions {
		for _, n := range r.Nodes {
			for _, p := range n.Pods {
				if n.Name+"/"+p.Name == pod {
					return []netip.Addr{p.IP4, p.IP6}
				}
			}
		}
	}
	w.Fatalf("there is no pod %s", pod)
	return nil
}

// peers are the public keys of the peers that a node's WireGuard device has.
func (w *world) peers(ctx context.Context, node string) ([]string, error) {
	out, err := w.lab.Host(node).Run(ctx, "wg", "show", "all", "peers")
	if err != nil {
		return nil, err
	}
	var keys []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 {
			keys = append(keys, f[1])
		}
	}
	return keys, nil
}

// key is the public key that a node published.
func (w *world) key(node string) string {
	w.Helper()
	te := &v1beta1.TunnelEndpoint{}
	w.must(w.api.Get(w.Context(), client.ObjectKey{Name: node}, te))
	for _, t := range te.Status.Tunnels {
		if t.PublicKey != "" {
			return t.PublicKey
		}
	}
	w.Fatalf("node %s has published no key: %+v", node, te.Status)
	return ""
}
