package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ravencni/raven/test/cluster"
	"github.com/ravencni/raven/test/cluster/node"
	"github.com/ravencni/raven/test/cluster/registry"
	"github.com/ravencni/raven/test/lab"
)

const (
	// master has the API server, as in the tutorial; its public address is the one way that all regions have to it.
	master = "cloud-1"
	// registryAt is the router's address on the cloud's public wire.
	registryAt = "203.0.113.1:5000"
	// patience bounds one step on a busy machine of two processors.
	patience = 3 * time.Minute
	// nextVersion is the folder of the images of another ABI, and what their tag has behind the others'.
	nextVersion = "next"
)

// version is the tag of Raven's images.
func version() string { return os.Getenv("RAVEN_E2E_VERSION") }

// world is the tutorial's cluster.
type world struct {
	*testing.T
	lab    *lab.Lab
	server *cluster.Cluster
	nodes  map[string]*node.Node
	// lists are the networks' configurations as a node must have them once Raven has gone; no entry: as it got it.
	lists map[string]string
	root  string // of the checkout
	begin time.Time
}

// step is a part of a test that stands on those before it.
type step struct {
	name string
	do   func(*world)
}

// through takes the steps one by one, up to the first that fails; RAVEN_E2E_GO_ON goes on behind it.
func (w *world) through(steps ...step) {
	for _, s := range steps {
		w.progress("%s", s.name)
		if !w.Run(s.name, func(t *testing.T) {
			inner := *w
			inner.T = t
			s.do(&inner)
		}) && os.Getenv("RAVEN_E2E_GO_ON") == "" {
			return
		}
	}
}

// newWorld starts regions, control plane and nodes, and waits until every node is ready.
func newWorld(t *testing.T, spec lab.Spec) *world {
	t.Helper()
	images := os.Getenv(envImages)
	if !lab.Enclosed() || images == "" {
		t.Skipf("needs root and the images that `make e2e` makes (%s)", envImages)
	}
	w := &world{T: t, nodes: map[string]*node.Node{}, lists: map[string]string{}, begin: time.Now()}
	var err error
	w.root, err = filepath.Abs("../..")
	w.must(err)
	w.progress("making %d regions", len(spec.Regions))
	w.lab, err = lab.Start(t.Context(), "e2e", spec)
	w.must(err)
	t.Cleanup(func() { w.check(w.lab.Close()) })
	w.serveImages(images)

	w.progress("starting the control plane on %s", master)
	address := w.spec(master).Public.Addr()
	w.server, err = cluster.Start(t.Context(), cluster.Options{
		Place: &cluster.Place{Inside: w.lab.Host(master).Do, Address: address},
		// Seven kubelets share the machine: a late lease is no dead node.
		ControllerManager: []string{"--node-monitor-grace-period=2m"},
	})
	w.must(err)
	t.Cleanup(func() { w.check(w.server.Stop()) })
	t.Cleanup(w.explain)
	w.startNodes(address)
	return w
}

// fromKubelets has the pods of the tutorial's cluster come from kubelets.
func fromKubelets(spec lab.Spec) lab.Spec {
	spec.Disks = true
	for i := range spec.Regions {
		for j := range spec.Regions[i].Nodes {
			n := &spec.Regions[i].Nodes[j]
			n.Pods, n.PodNetwork = nil, lab.LeftToOthers
		}
	}
	return spec
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

// progress says what begins.
func (w *world) progress(format string, args ...any) {
	say("%4.0f s  %s", time.Since(w.begin).Seconds(), fmt.Sprintf(format, args...))
}

// within is the test's context, with a limit.
func (w *world) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), limit)
	w.Cleanup(cancel)
	return ctx
}

// spec is a node as the lab knows it.
func (w *world) spec(name string) *lab.Node {
	w.Helper()
	for _, r := range w.lab.Spec.Regions {
		for i := range r.Nodes {
			if r.Nodes[i].Name == name {
				return &r.Nodes[i]
			}
		}
	}
	w.Fatalf("there is no node %s", name)
	return nil
}

func (w *world) serveImages(folder string) {
	archives, err := filepath.Glob(filepath.Join(folder, "*.oci.tar"))
	w.must(err)
	later, err := filepath.Glob(filepath.Join(folder, nextVersion, "*.oci.tar"))
	w.must(err)
	archives = append(archives, later...)
	var listener net.Listener
	w.must(w.lab.Host(lab.Internet).Do(func() (err error) {
		listener, err = net.Listen("tcp4", registryAt)
		return err
	}))
	r, err := registry.Serve(listener, filepath.Join(w.lab.Dir, "images"), archives...)
	w.must(err)
	w.Cleanup(func() { w.check(r.Close()) })
}

// startNodes makes each Node with the prefix of its pods, as a cloud's controllers do, and starts its programs.
func (w *world) startNodes(server netip.Addr) {
	programs, err := node.FindPrograms(w.Context(), w.server, w.root)
	w.must(err)
	logs := w.logs()
	for _, name := range w.lab.Nodes() {
		s := w.spec(name)
		labels := fmt.Sprintf("kubernetes.io/hostname: %s", name)
		if !strings.HasPrefix(name, "cloud") {
			labels += `, openyurt.io/is-edge-worker: "true"`
		}
		if name == master {
			labels += `, node-role.kubernetes.io/control-plane: ""`
		}
		taints := ""
		if name == outsider {
			taints = ", taints: [{key: in-no-region, effect: NoSchedule}]" // what asks other regions has no place there
		}
		w.apply(fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s, labels: {%s}}, spec: {podCIDR: %s, podCIDRs: [%s]%s}}",
			name, labels, s.Pods4, s.Pods4, taints))
	}
	w.progress("starting %d nodes", len(w.lab.Nodes()))
	starting, startCtx := errgroup.WithContext(w.within(patience))
	var mu sync.Mutex
	for i, name := range w.lab.Nodes() {
		s := w.spec(name)
		o := node.Options{
			Cluster: w.server, Server: fmt.Sprintf("https://%s:%d", server, w.server.Port()), Registry: netip.MustParseAddrPort(registryAt),
			Programs: programs, IP: s.IP4, Pods: s.Pods4, Network: lab.PointToPoint, Proxy: "iptables", Logs: logs,
		}
		if s.Gateway {
			o.Network = lab.Bridge
		}
		if i == 1 {
			o.Proxy = "nftables"
		}
		starting.Go(func() error {
			n, err := node.Start(startCtx, w.lab.Host(name), o)
			mu.Lock()
			defer mu.Unlock()
			if n != nil {
				w.nodes[name] = n
			}
			return err
		})
	}
	w.must(starting.Wait())
	w.progress("waiting until they are ready")
	group, ctx := errgroup.WithContext(w.within(patience))
	for _, name := range w.lab.Nodes() {
		group.Go(func() error {
			return lab.Await(ctx, "node "+name+" to be ready", func(ctx context.Context) error {
				if err := w.nodes[name].Ended(); err != nil {
					return lab.Final(err)
				}
				_, err := w.server.Kubectl(ctx, "", "wait", "--for=condition=Ready", "--timeout=10s", "node/"+name)
				return err
			})
		})
	}
	w.must(group.Wait())
	w.progress("all nodes are ready")
}

// logs is a folder for what the daemons write; RAVEN_E2E_LOGS names one that stays.
func (w *world) logs() string {
	if folder := os.Getenv("RAVEN_E2E_LOGS"); folder != "" {
		w.must(os.MkdirAll(folder, 0o755))
		return folder
	}
	return filepath.Join(w.lab.Dir, "logs")
}

// explain shows what a failure may come from.
func (w *world) explain() {
	if !w.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes", "-o", "wide"}, {"get", "pods", "-A", "-o", "wide"},
		{"get", "events", "-A", "--field-selector=type!=Normal", "--sort-by=.lastTimestamp"}, {"get", "gateways", "-o", "wide"},
	} {
		out, err := w.server.Kubectl(ctx, "", args...)
		w.check(err)
		w.Logf("kubectl %s\n%s", strings.Join(args, " "), out)
	}
	for _, n := range w.nodes {
		if err := n.Ended(); err != nil {
			w.Logf("%v: kubelet's log ends with:\n%s\ncontainerd's with:\n%s", err, n.Tail("kubelet", 8), n.Tail("containerd", 8))
		}
	}
	w.hold()
}

// hold leaves a failed cluster up for looking at it by hand, where RAVEN_E2E_HOLD names a folder, until a file "go" is there.
func (w *world) hold() {
	folder := os.Getenv("RAVEN_E2E_HOLD")
	if folder == "" {
		return
	}
	w.progress("held until %s/go is made", folder)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	w.check(lab.Await(ctx, "the end of the hold", func(context.Context) error {
		_, err := os.Stat(filepath.Join(folder, "go"))
		return err
	}))
}

// await asks three times a second until the answer is good: what is asked here often costs a process.
func (w *world) await(what string, ask func(context.Context) error) {
	w.Helper()
	w.must(w.awaited(what, ask))
}

// awaited is await for goroutines, which may not end a test.
func (w *world) awaited(what string, ask func(context.Context) error) error {
	tick := time.NewTicker(time.Second / 3)
	defer tick.Stop()
	return lab.Await(w.within(patience), what, func(ctx context.Context) error {
		err := ask(ctx)
		if err != nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		return err
	})
}

// rest lets time pass.
func (w *world) rest(long time.Duration) {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.Context().Done():
	}
}

func (w *world) apply(manifest string) {
	w.Helper()
	_, err := w.server.Kubectl(w.Context(), manifest, "apply", "-f", "-")
	w.must(err)
}

func (w *world) kubectl(args ...string) string {
	w.Helper()
	out, err := w.server.Kubectl(w.Context(), "", args...)
	w.must(err)
	return out
}

// podIP is the address of a pod in the default namespace.
func (w *world) podIP(name string) netip.Addr {
	w.Helper()
	ip, err := w.addressOf(name)
	w.must(err)
	return ip
}

func (w *world) addressOf(pod string) (netip.Addr, error) {
	out, err := w.server.Kubectl(w.Context(), "", "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(out)
}
