package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// buildNode makes a node with its cards, routes and pods. It may be called again after the node's host was closed: the
// folder that holds its /var/lib/raven is still there, as a disk is after a reboot.
func (l *Lab) buildNode(_ context.Context, r *Region, n *Node) error {
	h, err := l.addNode(n)
	if err != nil {
		return err
	}
	box := l.Host(Box(r.Name))
	if err := errors.Join(connect(h, "eth0", box, n.Name), box.Enslave(n.Name, "lan")); err != nil {
		return err
	}
	if n.Public.IsValid() {
		if err := l.plugIntoInternet(h, n); err != nil {
			return err
		}
	}
	return l.furnishNode(h, r, n)
}

// addNode starts a node's host, without any card.
func (l *Lab) addNode(n *Node) (*Host, error) {
	state := filepath.Join(l.Dir, "nodes", n.Name)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder of %s: %w", n.Name, err)
	}
	return l.addHost(n.Name, state)
}

// furnishNode gives a node with cards its addresses, routes and pods.
func (l *Lab) furnishNode(h *Host, r *Region, n *Node) error {
	err := errors.Join(
		h.forward(),
		h.AddAddr("eth0", at(n.IP4, r.LAN4)),
		h.AddAddr("eth0", at(n.IP6, r.LAN6)),
		h.AddRoute(anywhere6, first(r.LAN6), "eth0"),
	)
	if n.Public.IsValid() {
		err = errors.Join(err, h.AddAddr("eth1", n.Public), h.AddRoute(anywhere4, n.PublicRouter.Addr(), "eth1"))
	} else {
		err = errors.Join(err, h.AddRoute(anywhere4, first(r.LAN4), "eth0"))
	}
	// In-region traffic between pods is the CNI's matter: routes as host-gw makes them.
	for i := range r.Nodes {
		if peer := &r.Nodes[i]; peer.Name != n.Name {
			err = errors.Join(err,
				h.AddRoute(peer.Pods4, peer.IP4, "eth0"), h.AddRoute(peer.Pods6, peer.IP6, "eth0"))
		}
	}
	if err != nil {
		return err
	}
	if n.PodNetwork == Bridge {
		err := errors.Join(h.AddBridge("cni0"),
			h.AddAddr("cni0", at(first(n.Pods4), n.Pods4)), h.AddAddr("cni0", at(first(n.Pods6), n.Pods6)))
		if err != nil {
			return err
		}
	}
	for _, p := range n.Pods {
		if _, err := l.AddPod(n.Name, p); err != nil {
			return err
		}
	}
	return nil
}

// plugIntoInternet gives a node a second card, on the router.
func (l *Lab) plugIntoInternet(h *Host, n *Node) error {
	internet := l.Host(Internet)
	if err := connect(h, "eth1", internet, wire(n.Name)); err != nil {
		return err
	}
	return internet.AddAddr(wire(n.Name), n.PublicRouter)
}

// AddPod starts a pod on a node and connects it as the node's PodNetwork says.
func (l *Lab) AddPod(node string, p Pod) (*Host, error) {
	n, err := l.node(node)
	if err != nil {
		return nil, err
	}
	h := l.Host(node)
	pod, err := newPod(h, node+"/"+p.Name)
	if err != nil {
		return nil, err
	}
	l.keep(pod)
	veth := HostVeth(p)
	if err := connect(h, veth, pod, "eth0"); err != nil {
		return nil, err
	}
	if n.PodNetwork == Bridge {
		return pod, errors.Join(
			h.Enslave(veth, "cni0"),
			pod.AddAddr("eth0", at(p.IP4, n.Pods4)), pod.AddAddr("eth0", at(p.IP6, n.Pods6)),
			pod.AddRoute(anywhere4, first(n.Pods4), "eth0"), pod.AddRoute(anywhere6, first(n.Pods6), "eth0"),
		)
	}
	return pod, errors.Join(pointToPoint(h, veth, pod, p.IP4, first(n.Pods4)),
		pointToPoint(h, veth, pod, p.IP6, first(n.Pods6)))
}

// pointToPoint does what the ptp plugin does for one family: the node has the gateway's address on each veth and a
// host route to the pod; the pod reaches everything through the gateway.
func pointToPoint(h *Host, veth string, pod *Host, ip, gateway netip.Addr) error {
	everywhere := anywhere4
	if ip.Is6() {
		everywhere = anywhere6
	}
	return errors.Join(
		h.AddAddr(veth, host(gateway)),
		h.AddRoute(host(ip), netip.Addr{}, veth),
		pod.AddAddr("eth0", host(ip)),
		pod.AddRoute(host(gateway), netip.Addr{}, "eth0"),
		pod.AddRoute(everywhere, gateway, "eth0"),
	)
}

// HostVeth is the name of a pod's veth on its node.
func HostVeth(p Pod) string {
	b := p.IP4.As4()
	return fmt.Sprintf("veth%02x%02x%02x%02x", b[0], b[1], b[2], b[3])
}
