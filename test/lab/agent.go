package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// AgentBinary is the file name of the agent that labs run.
const AgentBinary = "raven-agent"

// Agent is the real raven-agent on a node.
type Agent struct {
	host    *Host
	process *Process
	// Log is the file that it writes to; restarts append.
	Log    string
	client *http.Client
}

// AgentOptions are the flags of the agents of a lab.
type AgentOptions struct {
	// Acceleration is auto or off.
	Acceleration string
	// Driver is wireguard, ipsec or plain.
	Driver string
	// Configured: what names the driver is the ConfigMap in the manifests (see ConfigureDriver), and no flag. Driver is then
	// the first one.
	Configured bool
	// Forwarding is overlay or direct.
	Forwarding string
	// Manifests is the folder to read and publish to; empty: the lab's.
	Manifests string
	// Kubeconfig names the file by which the agent on a node reaches an API server, instead of manifests; nil: there is none.
	Kubeconfig func(node string) string
	// Extra flags.
	Extra []string
	// Env holds more environment variables, as name=value.
	Env []string
}

// RefuseBPF is the agent's flag to act as on a kernel that refuses its programs.
const RefuseBPF = "--force-bpf-failure"

// Accelerated tells whether agents of these options forward by eBPF.
func (o AgentOptions) Accelerated() bool {
	return o.Acceleration != "off" && !slices.Contains(o.Extra, RefuseBPF)
}

func (o AgentOptions) args(l *Lab, node string) []string {
	args := []string{"--node-name", node, "--state-dir", "/var/lib/raven"}
	if o.Kubeconfig != nil {
		args = append(args, "--kubeconfig", o.Kubeconfig(node))
	} else {
		manifests := cmp.Or(o.Manifests, l.Manifests())
		args = append(args, "--manifests", manifests, "--publish-dir", manifests)
	}
	if o.Acceleration != "" {
		args = append(args, "--acceleration", o.Acceleration)
	}
	driver := o.Driver
	if driver == "" {
		driver = "wireguard"
	}
	if !o.Configured {
		args = append(args, "--vpn-driver", driver)
	}
	if driver == "plain" {
		args = append(args, "--allow-unencrypted-tunnel")
	}
	if o.Forwarding != "" {
		args = append(args, "--in-region-forwarding", o.Forwarding)
	}
	return append(args, o.Extra...)
}

// TunnelDevice is what gateways call the device of the agents' driver.
func (l *Lab) TunnelDevice() string {
	switch l.Options().Driver {
	case "plain":
		return "raven-plain0"
	case "ipsec":
		return "raven-ipsec0"
	}
	return "raven-wg0"
}

// FindAgent looks for the agent's binary: the file named by RAVEN_AGENT, bin/ in or above the working folder, the
// folder of this program.
func FindAgent() (string, error) {
	var candidates []string
	if path := os.Getenv("RAVEN_AGENT"); path != "" {
		candidates = append(candidates, path)
	}
	if dir, err := os.Getwd(); err == nil {
		for ; dir != "/"; dir = filepath.Dir(dir) {
			candidates = append(candidates, filepath.Join(dir, "bin", AgentBinary))
		}
	}
	if self, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Join(filepath.Dir(self), AgentBinary))
	}
	for _, path := range candidates {
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("find %s: none of %s can be run; build it with `make build` or name it in RAVEN_AGENT",
		AgentBinary, strings.Join(candidates, ", "))
}

// Tool puts a program that was built beside the agent, such as ravenctl, where all hosts of the lab see it.
func (l *Lab) Tool(name string) (path string, err error) {
	agent, err := FindAgent()
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(filepath.Join(filepath.Dir(agent), name))
	if err != nil {
		return "", fmt.Errorf("%s is not beside the agent's binary; run make build: %w", name, err)
	}
	path = filepath.Join(l.Dir, name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		return "", fmt.Errorf("put %s into the lab: %w", name, err)
	}
	return path, nil
}

// StartAgents starts the agent on each of the nodes (none named: all) and waits until every one is ready.
func (l *Lab) StartAgents(ctx context.Context, o AgentOptions, nodes ...string) error {
	if len(nodes) == 0 {
		nodes = l.Nodes()
	}
	l.mu.Lock()
	l.options = o
	l.mu.Unlock()
	for _, node := range nodes {
		if _, err := l.StartAgent(ctx, o, node); err != nil {
			return err
		}
	}
	return l.AwaitReady(ctx, nodes...)
}

// Options are those that StartAgents was last called with.
func (l *Lab) Options() AgentOptions {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.options
}

// RestartAgents kills the agents of the nodes with SIGKILL, starts them again with the lab's options and waits until
// they are ready.
func (l *Lab) RestartAgents(ctx context.Context, nodes ...string) error {
	for _, node := range nodes {
		if err := l.Agent(node).Stop(); err != nil {
			return err
		}
	}
	for _, node := range nodes {
		if _, err := l.StartAgent(ctx, l.Options(), node); err != nil {
			return err
		}
	}
	return l.AwaitReady(ctx, nodes...)
}

// StartAgent starts the agent on a node and does not wait for anything.
func (l *Lab) StartAgent(ctx context.Context, o AgentOptions, node string) (*Agent, error) {
	binary, err := l.agentCopy()
	if err != nil {
		return nil, err
	}
	h := l.Host(node)
	if h == nil {
		return nil, fmt.Errorf("lab %s has no node %q", l.Name, node)
	}
	a := &Agent{host: h, Log: filepath.Join(l.Dir, "logs", node+".log"), client: h.httpClient()}
	log, err := os.OpenFile(a.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of the agent on %s: %w", node, err)
	}
	defer log.Close()
	// The agent outlives the context that it was started under; Stop, the host or the enclosure ends it.
	args := append([]string{"VPN_CONNECTION_PSK=the lab's secret"}, o.Env...)
	args = append(args, binary)
	a.process, err = h.Start(context.WithoutCancel(ctx), log, "/usr/bin/env", append(args, o.args(l, node)...)...)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.agents[node] = a
	return a, nil
}

// agentCopy puts the agent's binary into the lab's folder once: a build during the lab's life does not change it, and
// no node's private mounts hide it.
func (l *Lab) agentCopy() (string, error) {
	l.binary.Do(func() { l.binaryPath, l.binaryErr = l.copyAgent() })
	return l.binaryPath, l.binaryErr
}

func (l *Lab) copyAgent() (string, error) {
	from, err := FindAgent()
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return "", fmt.Errorf("read the agent's binary: %w", err)
	}
	to := filepath.Join(l.Dir, AgentBinary)
	if err := os.WriteFile(to, content, 0o755); err != nil {
		return "", fmt.Errorf("copy the agent's binary: %w", err)
	}
	return to, nil
}

// Cleanup runs the agent with --cleanup on a node and returns what it printed. The node's agent must have been stopped.
func (l *Lab) Cleanup(ctx context.Context, node string, extra ...string) (string, error) {
	binary, err := l.agentCopy()
	if err != nil {
		return "", err
	}
	return l.Host(node).Run(ctx, binary, append(append(l.Options().args(l, node), "--cleanup"), extra...)...)
}

// Agent is the agent of a node; nil: none was started.
func (l *Lab) Agent(node string) *Agent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.agents[node]
}

// AwaitReady waits until the agents of the nodes say that their kernel is as planned and their tunnels are up.
func (l *Lab) AwaitReady(ctx context.Context, nodes ...string) error {
	var err error
	for _, node := range nodes {
		a := l.Agent(node)
		if a == nil {
			return fmt.Errorf("no agent was started on %s", node)
		}
		e := Await(ctx, "the agent on "+node+" to be ready", func(ctx context.Context) error {
			select {
			case <-a.process.Done():
				return Final(fmt.Errorf("it ended: %v; its log ends with:\n%s", a.process.Wait(), a.LogTail(15)))
			default:
			}
			if _, err := a.Get(ctx, "http://127.0.0.1:10275/readyz"); err != nil {
				return err
			}
			return l.tunnelsUp(ctx, node)
		})
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%w\nlog of %s:\n%s", e, node, a.LogTail(15)))
		}
	}
	return err
}

// tunnelsUp: a gateway holds a tunnel to every region that it can dial or that dials it, and each has had a handshake.
func (l *Lab) tunnelsUp(ctx context.Context, node string) error {
	want := 0
	for i := range l.Spec.Regions {
		own := &l.Spec.Regions[i]
		if own.Gateway().Name != node {
			continue
		}
		for j := range l.Spec.Regions {
			if i != j && (own.Exposed() || l.Spec.Regions[j].Exposed()) {
				want++
			}
		}
	}
	if want == 0 {
		return nil
	}
	m, err := l.Metrics(ctx, node)
	if err != nil {
		return err
	}
	if up := m.Sum("raven_tunnel_peer_state", "state", "up"); up != float64(want) {
		return fmt.Errorf("%g of %d tunnels are up", up, want)
	}
	return nil
}

// Stop kills the agent with SIGKILL, as an out-of-memory killer does.
func (a *Agent) Stop() error { return a.process.Stop() }

// Process is the agent's process.
func (a *Agent) Process() *Process { return a.process }

// LogText is everything that the agent wrote.
func (a *Agent) LogText() string {
	b, err := os.ReadFile(a.Log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// LogTail is the last lines of the agent's log.
func (a *Agent) LogTail(lines int) string {
	all := strings.Split(strings.TrimSpace(a.LogText()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// httpClient dials from within the host.
func (h *Host) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = h.Do(func() error {
				c, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}}
}

// Get fetches a page of the agent, such as http://127.0.0.1:10265/metrics, from within its node. Any status but 200 is
// an error.
func (a *Agent) Get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("make a request for %s: %w", url, err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("on %s: %w", a.host.Name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("read %s on %s: %w", url, a.host.Name, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s on %s: %s: %s", url, a.host.Name, resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}
