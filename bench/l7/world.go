package l7

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/ravencni/raven/test/lab"
)

// Hosts of the lab. The client is in the region of the exposed gateway, as an API server is; the node in a region that
// dials out.
const (
	clientHost, cloud = "east-2", "east-1"
	edge, nodeName    = "west-1", "west-2"
)

// Ports of the node's servers, and where the front ends in the cloud listen.
const (
	plainPort, tlsPort          = 8080, 8443
	ravenHTTP, ravenTLS         = 10264, 10263
	haproxyHTTP, haproxyTLS     = 9080, 9443
	haproxyInner, haproxyInner2 = 9444, 9445
)

// Fronts are what a client speaks to the first proxy: HTTP, or TLS that the proxies do not end.
const (
	HTTP = "http"
	TLS  = "tls"
)

// Paths.
const (
	Direct  = "direct"
	HAProxy = "haproxy"
	Raven   = "raven"
)

// world is the lab with everything that is measured running in it.
type world struct {
	lab    *lab.Lab
	client *lab.Host
	server *server
	keys   *keys
	// addresses of nodes, and those of the gateways on the wire between the regions.
	ip, public map[string]netip.Addr
}

// start builds the lab. The caller closes it, also after an error.
func start(ctx context.Context) (*world, error) {
	l, err := lab.Start(ctx, "bench-l7", lab.StraightPair())
	if err != nil {
		return nil, err
	}
	w := &world{lab: l, client: l.Host(clientHost), ip: map[string]netip.Addr{}, public: map[string]netip.Addr{}}
	lan := map[string]netip.Prefix{}
	for _, r := range l.Spec.Regions {
		for _, n := range r.Nodes {
			w.ip[n.Name], w.public[n.Name], lan[n.Name] = n.IP4, n.Public.Addr(), r.LAN4
		}
	}
	// The direct connection goes the same way, as plain IP.
	err = errors.Join(
		l.Host(clientHost).AddRoute(lan[nodeName], w.ip[cloud], "eth0"), l.Host(cloud).AddRoute(lan[nodeName], w.public[edge], "eth1"),
		l.Host(edge).AddRoute(lan[clientHost], w.public[cloud], "eth1"), l.Host(nodeName).AddRoute(lan[clientHost], w.ip[edge], "eth0"),
	)
	if err != nil {
		return w, err
	}
	if w.keys, err = makeKeys(l.Dir, cloud, edge, nodeName); err != nil {
		return w, err
	}
	w.server, err = w.serve()
	return w, err
}

func (w *world) close() error {
	var err error
	if w.server != nil {
		err = w.server.close()
	}
	return errors.Join(err, w.lab.Close())
}

// address is where a client dials for a path.
func (w *world) address(path, front string) string {
	port := map[string]map[string]int{
		Direct: {HTTP: plainPort, TLS: tlsPort}, HAProxy: {HTTP: haproxyHTTP, TLS: haproxyTLS}, Raven: {HTTP: ravenHTTP, TLS: ravenTLS},
	}[path][front]
	ip := w.ip[cloud]
	if path == Direct {
		ip = w.ip[nodeName]
	}
	return netip.AddrPortFrom(ip, uint16(port)).String()
}

// listen opens a port of a host.
func listen(h *lab.Host, address string) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = net.Listen("tcp4", address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", h.Name, err)
	}
	return l, nil
}
