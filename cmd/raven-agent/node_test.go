package main

import (
	"bufio"
	"bytes"
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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ravencni/raven/test/netns"
)

// TestMain lets the test binary be the agent, and the process that the agent starts, so that the real program runs in
// the tests, with the race detector where they have it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		main()
		return
	}
	os.Exit(m.Run())
}

// manifests are two regions; this node, a1, is the gateway of the exposed one.
const manifests = `apiVersion: raven.openyurt.io/v1alpha1
kind: Gateway
metadata: {name: gw-a}
spec:
  exposeType: PublicIP
  endpoints: [{nodeName: a1, type: tunnel, publicIP: 192.0.2.1}]
---
apiVersion: raven.openyurt.io/v1beta1
kind: Gateway
metadata: {name: gw-b}
spec:
  endpoints: [{nodeName: b1, type: tunnel, underNAT: true}]
---
apiVersion: v1
kind: Node
metadata: {name: a1, labels: {raven.openyurt.io/gateway: gw-a}}
spec: {podCIDRs: [10.1.1.0/24, "fd00:1:1::/64"]}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: InternalIP, address: "fd00::1"}]}
---
apiVersion: v1
kind: Node
metadata: {name: a2, labels: {raven.openyurt.io/gateway: gw-a}}
spec: {podCIDRs: [10.1.2.0/24, "fd00:1:2::/64"]}
status: {addresses: [{type: InternalIP, address: 10.0.0.2}, {type: InternalIP, address: "fd00::2"}]}
---
apiVersion: v1
kind: Node
metadata: {name: b1, labels: {raven.openyurt.io/gateway: gw-b}}
spec: {podCIDRs: [10.2.1.0/24, "fd00:2:1::/64"]}
status: {addresses: [{type: InternalIP, address: 10.0.1.1}, {type: InternalIP, address: "fd01::1"}]}
---
apiVersion: raven.openyurt.io/v1beta1
kind: TunnelEndpoint
metadata: {name: b1}
status:
  addresses: [10.0.1.1]
  underlayMTU: 1500
  tunnels: [{driver: wireguard, port: 4500, publicKey: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="}]
`

// node is the namespace of the calling goroutine.
type node struct {
	t         *testing.T
	manifests string
	started   []*process
}

// onNode runs f in a namespace that is set up like a node. f must not use t.Run, whose goroutine is elsewhere.
func onNode(t *testing.T, f func(t *testing.T, n *node)) {
	t.Helper()
	t.Parallel()
	netns.Run(t, func(t *testing.T) {
		n := &node{t: t, manifests: t.TempDir()}
		// Deferred and not t.Cleanup's, which runs outside the namespace: no process outlives the test.
		defer n.end()
		n.setUp()
		f(t, n)
	})
}

func (n *node) setUp() {
	n.t.Helper()
	n.sh(`ip link add u0 type veth peer name u1
		ip link set u0 addrgenmode none
		ip link set u1 addrgenmode none
		ip addr add 10.0.0.1/24 dev u0
		ip addr add fd00::1/64 dev u0 nodad
		ip link set u0 up
		ip link set u1 up
		ip route add default via 10.0.0.254
		nft add table inet other; nft 'add chain inet other forward { type filter hook forward priority 0; }'`)
	n.write("cluster.yaml", manifests)
	n.await("the veth's carrier", func() (bool, string) {
		out := n.sh("ip link show up; ip -4 route; ip -6 route")
		return !strings.Contains(out, "NO-CARRIER") && !strings.Contains(out, "linkdown"), out
	})
}

func (n *node) end() {
	n.t.Helper()
	for _, p := range n.started {
		p.end(syscall.SIGKILL)
	}
	if out, code := n.run("--cleanup"); code != 0 {
		n.t.Errorf("the cleanup ended with %d:\n%s", code, out)
	}
}

// write puts a file into the manifests folder.
func (n *node) write(name, content string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.manifests, name), []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// sh runs a script and returns what it printed.
func (n *node) sh(script string) string {
	n.t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// run runs the agent to its end and returns what it printed and its exit code.
func (n *node) run(args ...string) (string, int) {
	n.t.Helper()
	out, err := exec.Command("/proc/self/exe", args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !asExit(err, &exit) {
		n.t.Errorf("run the agent: %v", err)
		return string(out), -1
	} else if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

func asExit(err error, to **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*to = e
	return ok
}

// process is a running agent.
type process struct {
	n   *node
	cmd *exec.Cmd
	log *logText
}

// logText is what the agent wrote so far.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// logged says whether the agent wrote some words.
func (p *process) logged(words string) bool { return strings.Contains(p.log.String(), words) }

// start starts the agent; it ends with the node at the latest.
func (n *node) start(args ...string) *process {
	n.t.Helper()
	p := &process{n: n, log: &logText{}}
	args = append([]string{"--node-name=a1", "--vpn-driver=wireguard", "--publish-dir=" + n.manifests}, args...)
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--manifests") }) {
		args = append(args, "--manifests="+n.manifests)
	}
	p.cmd = exec.Command("/proc/self/exe", args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.started = append(n.started, p)
	return p
}

// end sends a signal and waits for the end.
func (p *process) end(s syscall.Signal) {
	p.n.t.Helper()
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Signal(s); err != nil {
		p.n.t.Errorf("send %v: %v", s, err)
	}
	err := p.cmd.Wait()
	if s == syscall.SIGTERM && err != nil {
		p.n.t.Errorf("after SIGTERM the agent ended with %v:\n%s", err, p.log)
	}
}

// get fetches a page from within the namespace: the calling thread makes the socket.
func (n *node) get(port int, path string) (int, string, error) {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, "", err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// await waits until ok returns true, for at most twenty seconds; ok's words say how far it is.
func (p *process) await(what string, ok func() (bool, string)) {
	p.n.t.Helper()
	p.n.await(what, func() (bool, string) {
		done, words := ok()
		return done, words + "\nthe agent's log:\n" + p.log.String()
	})
}

func (n *node) await(what string, ok func() (bool, string)) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, words := ok()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.t.Fatalf("never saw %s; last: %s", what, words)
		}
	}
}

func (p *process) awaitReady() {
	p.n.t.Helper()
	p.await("a ready agent", func() (bool, string) {
		code, body, err := p.n.get(10275, "/readyz")
		return err == nil && code == http.StatusOK, fmt.Sprint(code, body, err)
	})
}

// metrics are the page's lines that begin with one of the names, without those of other metrics.
func (n *node) metrics(names ...string) map[string]float64 {
	n.t.Helper()
	_, page, err := n.get(10265, "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(page) {
		series, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		name, _, _ := strings.Cut(series, "{")
		if !ok || !slices.Contains(names, name) {
			continue
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			n.t.Fatalf("metric %s: %v", line, err)
		}
		out[series] = value
	}
	return out
}

// kernel is everything that an agent might leave behind, as the tools print it.
func (n *node) kernel() string {
	n.t.Helper()
	return n.sh(`ip -d addr | sed 's/valid_lft.*//'; ip rule; ip -6 rule; ip route show table all | sort; ip -6 route show table all | sort
		ip neigh show nud permanent; bridge fdb; nft list ruleset; sysctl -a 2>/dev/null | grep '^net\.' |
		grep -v 'nf_conntrack_count\|neigh.*gc_\|random\|\.stable_secret'; ls /sys/fs/bpf`)
}

// planned is what the manifests ask for, in the kernel's words.
func (n *node) planned() (bool, string) { return n.plannedBy("raven-wg0") }

// plannedBy is planned with a driver's device.
func (n *node) plannedBy(device string) (bool, string) {
	out := n.sh(`ip route show table 9027; ip -6 route show table 9027; ip route show table 9028; ip rule; ip -br link; nft list tables`)
	for _, want := range []string{
		"10.2.1.0/24 dev " + device, "fd00:2:1::/64 dev " + device, "10.1.2.0/24 via 10.0.0.2 dev raven0",
		"lookup 9027", "iif " + device + " lookup 9028", "raven0", "table inet raven",
	} {
		if !strings.Contains(out, want) {
			return false, "no " + want + " in\n" + out
		}
	}
	return true, ""
}

// difference shows the lines that only one of two texts has.
func difference(a, b string) string {
	var out strings.Builder
	left, right := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, l := range left {
		if !slices.Contains(right, l) {
			fmt.Fprintf(&out, "- %s\n", l)
		}
	}
	for _, l := range right {
		if !slices.Contains(left, l) {
			fmt.Fprintf(&out, "+ %s\n", l)
		}
	}
	return out.String()
}
