package controlplane

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/test/cluster"
)

// The size, and the limits that are promised for it.
const (
	gateways, nodesEach = 1000, 10
	changes             = 100

	maxFirstSync = 60 * time.Second
	maxMemory    = 500 << 20
	maxLatency   = 2 * time.Second // 99th percentile
	maxWrites    = 4               // a change makes one Gateway's condition say something else; the Lease is renewed meanwhile
	maxEvent     = 4 << 10         // bytes that reach each agent of another region for a change
)

// enabled is the environment variable that asks for this measurement, which takes some minutes and a quiet machine, and
// names the file for its result.
const enabled = "RAVEN_BENCH_CONTROLPLANE"

func TestTheControllerAtScale(t *testing.T) {
	if os.Getenv(enabled) == "" {
		t.Skipf("it takes minutes: run make bench-controlplane, or set %s to the file for its result", enabled)
	}
	// Ten thousand nodes within a minute keep the TTL controller, which may write 20 of them in a second, at work for the
	// next eight, and every watch of Nodes with it.
	server, err := cluster.Start(t.Context(), cluster.Options{ControllerManager: []string{
		"--controllers=*,-node-lifecycle-controller,-taint-eviction-controller,-ttl-controller"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := server.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	api := newClient(t, server)
	begin := time.Now()
	populate(t, api)
	t.Logf("created %d gateways and %d nodes in %s", gateways, gateways*nodesEach, time.Since(begin).Round(time.Second))

	r := newResult()
	start := prepareController(t, server)
	begin = time.Now()
	process := start()
	settled(t, api)
	r.FirstSync = rounded(time.Since(begin))

	quiet(t, process)
	agent := startRemote(t, server, nodeName(gateways-1, nodesEach-1))
	heard := agent.settled(t)
	before := process.requests(t)
	latencies, watched := measure(t, api)
	quiet(t, process)
	after := process.requests(t)
	agent.awaitChanges(t, changes)
	r.RemoteBytes = float64(agent.settled(t)-heard) / changes
	r.GatewayBytes, r.Strangers = float64(watched.bytes)/changes, watched.strangers
	slices.Sort(latencies)
	r.ChangeMedian, r.Change99 = rounded(latencies[len(latencies)/2]), rounded(latencies[len(latencies)*99/100])
	r.ReadsPerChange = (after["GET"] - before["GET"]) / changes
	for _, method := range []string{"PUT", "POST", "PATCH"} {
		r.WritesPerChange += (after[method] - before[method]) / changes
	}
	r.MemoryMiB = process.memory(t) >> 20
	r.keep(t, os.Getenv(enabled))
	r.check(t)
}

func newClient(t *testing.T, server *cluster.Cluster) client.WithWatch {
	t.Helper()
	scheme := apiruntime.NewScheme()
	for _, add := range []func(*apiruntime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	config := server.Admin()
	config.QPS = -1
	api, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func gatewayName(i int) string { return fmt.Sprintf("gw-%04d", i) }

func nodeName(i, k int) string { return fmt.Sprintf("node-%04d-%d", i, k) }

// newNode makes a Node of the weight that a kubelet's has: its images are most of it.
func newNode(i, k int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i, k), Labels: map[string]string{
		v1beta1.LabelGateway: gatewayName(i), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": nodeName(i, k)}}}
	number := i*nodesEach + k
	n.Spec.PodCIDR = fmt.Sprintf("10.%d.%d.0/24", 64+number/256, number%256)
	n.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("172.16.%d.%d", number/250, 1+number%250)}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}
	for image := range 20 {
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{SizeBytes: 1 << 20,
			Names: []string{fmt.Sprintf("registry.example.com/some/project/image-%d@sha256:%064d", image, number)}})
	}
	return n
}

func populate(t *testing.T, api client.Client) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(32)
	for i := range gateways {
		group.Go(func() error {
			gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: gatewayName(i)}, Spec: v1beta1.GatewaySpec{Endpoints: []v1beta1.Endpoint{
				{NodeName: nodeName(i, 0), Type: v1beta1.EndpointTunnel, UnderNAT: true}}}}
			if err := api.Create(t.Context(), gw); err != nil {
				return err
			}
			for k := range nodesEach {
				if err := api.Create(t.Context(), newNode(i, k)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// controller is the real program in a process of its own.
type controller struct {
	pid     int
	metrics string
}

// prepareController builds it and returns what starts it.
func prepareController(t *testing.T, server *cluster.Cluster) (start func() *controller) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "raven-controller")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/raven-controller").CombinedOutput(); err != nil {
		t.Fatalf("build raven-controller: %v\n%s", err, out)
	}
	config, err := server.PodUser(t.Context(), "kube-system", cluster.ControllerAccount, "")
	if err != nil {
		t.Fatal(err)
	}
	content, err := cluster.Kubeconfig(config)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, content, 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	cmd := exec.Command(binary, "--kubeconfig", kubeconfig, "--metric-bind-addr", address, "--health-probe-addr", "0", "--log-level", "warn")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return func() *controller {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end(t, cmd) })
		return &controller{pid: cmd.Process.Pid, metrics: "http://" + address + "/metrics"}
	}
}

// freeAddress is one of the loopback's where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func end(t *testing.T, cmd *exec.Cmd) {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("raven-controller ended: %v", err)
	}
}

// memory is the most that was resident, in bytes.
func (c *controller) memory(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// requests to the API server by method. Those for the Lease are of no interest, and few.
func (c *controller) requests(t *testing.T) map[string]float64 {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.metrics, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	return count(t, answer.Body)
}

func count(t *testing.T, text io.Reader) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for lines := bufio.NewScanner(text); lines.Scan(); {
		labels, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "rest_client_requests_total{"), "} ")
		if !ok || labels == lines.Text() {
			continue
		}
		_, method, _ := strings.Cut(labels, `method="`)
		method, _, _ = strings.Cut(method, `"`)
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		out[method] += n
	}
	return out
}

// settled waits until every Gateway has its status.
func settled(t *testing.T, api client.Client) {
	t.Helper()
	// Well beyond the limit, so that a run that misses it says by how much.
	await(t, 5*maxFirstSync, "every Gateway's status", func(ctx context.Context) bool {
		var list v1beta1.GatewayList
		if err := api.List(ctx, &list); err != nil {
			if ctx.Err() == nil {
				t.Fatal(err)
			}
			return false
		}
		return !slices.ContainsFunc(list.Items, func(gw v1beta1.Gateway) bool {
			return !meta.IsStatusConditionTrue(gw.Status.Conditions, "Ready") || gw.Status.NodeCount != nodesEach
		})
	})
}

// quiet waits until the controller has written nothing for some seconds but its Lease.
func quiet(t *testing.T, c *controller) {
	t.Helper()
	last, since := c.requests(t), time.Now()
	await(t, time.Minute, "a quiet controller", func(context.Context) bool {
		now := c.requests(t)
		if now["PUT"]+now["POST"]+now["PATCH"] > last["PUT"]+last["POST"]+last["PATCH"]+3 {
			last, since = now, time.Now()
		}
		return time.Since(since) > 4*time.Second
	})
}

func await(t *testing.T, limit time.Duration, what string, ask func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for !ask(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never saw %s", what)
		}
	}
}
