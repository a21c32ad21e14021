package cluster

import (
	"context"
	"net"
	"net/netip"
)

// Place is another network namespace than this process's, for the control plane of a cluster with kubelets. What runs
// there does not die with this process by itself: a pid namespace around both must see to it.
type Place struct {
	// Inside runs f on a thread in the namespace.
	Inside func(f func() error) error
	// Address is one of the place, by which kubelets and pods reach the API server; the port is that of Port.
	Address netip.Addr
}

// Port is the API server's, on loopback and on the Address of its Place.
func (c *Cluster) Port() uint16 { return uint16(c.ports.numbers[portAPI]) }

// frontProxy is the common name by which the API server calls aggregated API servers.
const frontProxy = "front-proxy"

// Authority is the certificate of the cluster's authority, PEM.
func (c *Cluster) Authority() []byte { return c.ca.pem }

// Binaries is the folder of the programs that build.sh builds.
func (c *Cluster) Binaries() string { return c.binaries }

func (c *Cluster) inside(f func() error) error {
	if c.options.Place == nil {
		return f()
	}
	return c.options.Place.Inside(f)
}

// dial is how a client in this process reaches the control plane; nil: as any client does.
func (c *Cluster) dial() func(ctx context.Context, network, address string) (net.Conn, error) {
	if c.options.Place == nil {
		return nil
	}
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = c.inside(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

func (c *Cluster) addressFlags() []string {
	if c.options.Place == nil {
		// Nothing is reachable from outside, so no Endpoints of the Service kubernetes are kept.
		return []string{"--bind-address=" + loopback.String(), "--advertise-address=" + loopback.String(),
			"--endpoint-reconciler-type=none"}
	}
	return []string{"--bind-address=0.0.0.0", "--advertise-address=" + c.options.Place.Address.String(),
		"--kubelet-client-certificate=" + c.file("kubelet-client.crt"), "--kubelet-client-key=" + c.file("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		// The aggregation layer: as whom the API server calls aggregated API servers.
		"--proxy-client-cert-file=" + c.file("front-proxy.crt"), "--proxy-client-key-file=" + c.file("front-proxy.key"),
		"--requestheader-client-ca-file=" + c.file("ca.crt"), "--requestheader-allowed-names=" + frontProxy,
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-"}
}

func (c *Cluster) startScheduler() (err error) {
	c.scheduler, err = c.run("kube-scheduler", "--kubeconfig="+c.file("admin.kubeconfig"), "--leader-elect=false",
		"--authentication-kubeconfig="+c.file("admin.kubeconfig"), "--authorization-kubeconfig="+c.file("admin.kubeconfig"),
		"--bind-address="+loopback.String())
	return err
}
