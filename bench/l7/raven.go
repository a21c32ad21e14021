package l7

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/proxy"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/lab"
)

// ProxyCommand is the name of raven-bench's command that runs Raven's proxy of a node: RunProxy.
const ProxyCommand = "l7-proxy"

// startRaven starts Raven's proxies on both gateways, each a process of its own, as in the agent. The agent itself needs an API
// server for its proxy, which signs its certificate; nothing else is missing here.
func (w *world) startRaven(ctx context.Context) ([]*lab.Process, error) {
	var all []*lab.Process
	var nodes []string
	for name, ip := range w.ip {
		node := name + "=" + ip.String()
		if p := w.public[name]; p.IsValid() {
			node += "=" + p.String()
		}
		nodes = append(nodes, node)
	}
	for _, host := range []string{cloud, edge} {
		p, err := w.run(ctx, host, "raven", "/proc/self/exe", append([]string{ProxyCommand, host, w.keys.folder}, nodes...)...)
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
	return all, nil
}

// RunProxy runs Raven's proxy of a node until ctx ends. folder holds the keys; nodes are name=address, and for gateways
// name=address=public address.
func RunProxy(ctx context.Context, node, folder string, nodes []string) error {
	state, err := cluster(nodes)
	if err != nil {
		return err
	}
	own, err := (&keys{folder: folder}).read(node)
	if err != nil {
		return err
	}
	p := proxy.New(proxy.Options{
		Node: node, Identity: own, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Targets: func() services.Targets { return services.Targets{tlsPort: ravenTLS} },
	})
	p.Set(state)
	p.Run(ctx)
	return nil
}

// cluster is what an API server would have: the cloud's gateway exposed, the edge's not.
func cluster(nodes []string) (topology.State, error) {
	var s topology.State
	for _, text := range nodes {
		fields := strings.Split(text, "=")
		if len(fields) < 2 {
			return s, fmt.Errorf("node %q is not name=address", text)
		}
		name := fields[0]
		region, _, _ := strings.Cut(name, "-")
		gateway := "gw-" + region
		s.Nodes = append(s.Nodes, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1beta1.LabelGateway: gateway}},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fields[1]}}},
		})
		if len(fields) < 3 {
			continue
		}
		gw := &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: gateway}}
		e := &v1beta1.Endpoint{NodeName: name, Type: v1beta1.EndpointProxy, Config: map[string]string{v1beta1.ConfigEnableProxy: "true"}}
		if name == cloud {
			if _, err := netip.ParseAddr(fields[2]); err != nil {
				return s, fmt.Errorf("the public address of %s: %w", name, err)
			}
			gw.Spec.ExposeType, e.PublicIP = v1beta1.ExposePublicIP, fields[2]
			gw.Spec.ProxyConfig = &v1beta1.ProxyConfiguration{ProxyHTTPPort: fmt.Sprint(plainPort), ProxyHTTPSPort: fmt.Sprint(tlsPort)}
		}
		gw.Status.ActiveEndpoints = []*v1beta1.Endpoint{e}
		s.Gateways = append(s.Gateways, gw)
	}
	return s, nil
}
