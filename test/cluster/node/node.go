package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/ravencni/raven/test/cluster"
	"github.com/ravencni/raven/test/lab"
)

// Node is a host of a lab on which a container runtime and a kubelet run.
type Node struct {
	*lab.Host
	// Network and Pods are those of the Options.
	Network lab.PodNetwork
	Pods    netip.Prefix
	logs    string
	daemons []*lab.Process
}

// Options of a node.
type Options struct {
	Cluster *cluster.Cluster
	// Server is how kubelet and kube-proxy reach the API server.
	Server string
	// Registry serves every image, whatever registry its name says.
	Registry netip.AddrPort
	Programs *Programs
	// IP is the node's own address, Pods what its pods get theirs from.
	IP   netip.Addr
	Pods netip.Prefix
	// Network is the primary CNI plugin, bridge or ptp; MTU that of the pods' devices.
	Network lab.PodNetwork
	// Proxy is kube-proxy's mode, iptables or nftables.
	Proxy string
	// Logs is an existing folder for the logs of the node's daemons.
	Logs string
}

// Start starts containerd, kubelet and kube-proxy on a host and does not wait until the node is ready. They end with the
// host.
func Start(ctx context.Context, h *lab.Host, o Options) (*Node, error) {
	n := &Node{Host: h, Network: o.Network, Pods: o.Pods, logs: o.Logs}
	if err := n.furnish(ctx, o); err != nil {
		return nil, fmt.Errorf("make %s a node: %w", h.Name, err)
	}
	runtime := filepath.Join(o.Programs.Containerd, "containerd")
	for _, d := range []struct {
		program string
		args    []string
	}{
		{runtime, []string{"--config=" + containerdConfig}},
		{filepath.Join(o.Programs.Kubernetes, "kubelet"), []string{"--config=" + kubeletConfig, "--kubeconfig=" + kubeconfig,
			"--hostname-override=" + h.Name, "--node-ip=" + o.IP.String(), "--cert-dir=/var/lib/kubelet/pki"}},
		{filepath.Join(o.Programs.Kubernetes, "kube-proxy"), []string{"--config=" + proxyConfig}},
	} {
		if err := n.start(ctx, o, d.program, d.args...); err != nil {
			return nil, err
		}
		if d.program == runtime { // kubelet gives up where there is none
			if err := n.awaitSocket(ctx); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

func (n *Node) awaitSocket(ctx context.Context) error {
	return lab.Await(ctx, "containerd on "+n.Name, func(context.Context) error {
		if err := n.Ended(); err != nil {
			return lab.Final(err)
		}
		_, err := os.Stat(n.Path("/run/containerd/containerd.sock"))
		return err
	})
}

// start starts a daemon in the node's cgroups.
func (n *Node) start(ctx context.Context, o Options, program string, args ...string) error {
	log, err := os.OpenFile(n.log(filepath.Base(program)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of %s on %s: %w", program, n.Name, err)
	}
	defer log.Close()
	const join = `for group in /sys/fs/cgroup/*/cgroup.procs; do echo 0 >"$group"; done
		export PATH="$1:$PATH"; shift; exec unshare --cgroup -- "$@"`
	p, err := n.Start(context.WithoutCancel(ctx), log, "/bin/sh",
		append([]string{"-euc", join, "sh", o.Programs.Containerd, program}, args...)...)
	if err != nil {
		return err
	}
	n.daemons = append(n.daemons, p)
	return nil
}

func (n *Node) log(daemon string) string { return filepath.Join(n.logs, n.Name+"-"+daemon+".log") }

// Ended is an error where one of the node's daemons has ended.
func (n *Node) Ended() error {
	for _, d := range n.daemons {
		select {
		case <-d.Done():
			return fmt.Errorf("a daemon of %s ended: %w", n.Name, errors.Join(d.Wait(), errors.New("see its log")))
		default:
		}
	}
	return nil
}

// Tail is the end of the log of containerd, kubelet or kube-proxy.
func (n *Node) Tail(daemon string, lines int) string {
	content, err := os.ReadFile(n.log(daemon))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
