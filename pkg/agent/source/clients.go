package source

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Clients are the agent's connections to an API server.
type Clients struct {
	core, raven, certificates *rest.RESTClient
	dialled                   *dialled
}

// NewClients connects by a kubeconfig file, or with an empty path by the pod's service account. version goes into the
// user agent, which begins with raven-agent-ds/ since edge caches match on it. No request is made yet.
func NewClients(kubeconfig, version string) (*Clients, error) {
	var config *rest.Config
	var err error
	if kubeconfig == "" {
		if config, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("no --manifests, no --kubeconfig, and not in a pod: %w", err)
		}
	} else if config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	return newClients(config, version)
}

func newClients(config *rest.Config, version string) (*Clients, error) {
	scheme := apiruntime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the core types: %w", err)
	}
	if err := v1beta1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the Raven types: %w", err)
	}
	if err := certificatesv1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the types of certificates: %w", err)
	}
	c := &Clients{dialled: &dialled{}}
	config = rest.CopyConfig(config)
	config.UserAgent = fmt.Sprintf("raven-agent-ds/%s (%s/%s)", version, runtime.GOOS, runtime.GOARCH)
	config.Dial = c.dialled.dial
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()

	var err error
	client := func(gv schema.GroupVersion, path, content string) (*rest.RESTClient, error) {
		cfg := rest.CopyConfig(config)
		cfg.GroupVersion, cfg.APIPath = &gv, path
		cfg.AcceptContentTypes, cfg.ContentType = content, content
		return rest.RESTClientFor(cfg)
	}
	if c.core, err = client(corev1.SchemeGroupVersion, "/api", "application/vnd.kubernetes.protobuf"); err != nil {
		return nil, fmt.Errorf("make a client of the API server at %s: %w", config.Host, err)
	}
	if c.raven, err = client(v1beta1.GroupVersion, "/apis", "application/json"); err != nil {
		return nil, fmt.Errorf("make a client of the API server at %s: %w", config.Host, err)
	}
	if c.certificates, err = client(certificatesv1.SchemeGroupVersion, "/apis", "application/json"); err != nil {
		return nil, fmt.Errorf("make a client of the API server at %s: %w", config.Host, err)
	}
	return c, nil
}

// Core is the client of the core API, and Certificates that of certificates.k8s.io.
func (c *Clients) Core() rest.Interface { return c.core }

// Certificates is described with Core.
func (c *Clients) Certificates() rest.Interface { return c.certificates }

// Raven is the client of the raven.openyurt.io API.
func (c *Clients) Raven() rest.Interface { return c.raven }

// maxDialled bounds the addresses that are remembered, for names that resolve to ever new ones.
const maxDialled = 16

// dialled remembers the addresses that were dialled, the latest last.
type dialled struct {
	mu    sync.Mutex
	hosts []netip.Addr
	tell  func()
}

func (d *dialled) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout: 30 * time.Second, KeepAlive: 30 * time.Second,
		// Control sees each address that a name resolved to, before the first packet.
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			if to, err := netip.ParseAddrPort(address); err == nil {
				d.add(to.Addr().Unmap().WithZone(""))
			}
			return nil
		},
	}
	return dialer.DialContext(ctx, network, address)
}

func (d *dialled) add(a netip.Addr) {
	d.mu.Lock()
	known := slices.Contains(d.hosts, a)
	if !known && !a.IsLoopback() {
		d.hosts = append(d.hosts, a)
		d.hosts = d.hosts[max(0, len(d.hosts)-maxDialled):]
	}
	tell := d.tell
	d.mu.Unlock()
	if !known && !a.IsLoopback() && tell != nil {
		tell()
	}
}

func (d *dialled) seed(hosts []netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hosts = slices.Clone(hosts)
}

func (d *dialled) onNew(tell func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell = tell
}

// addrs returns the addresses, sorted.
func (d *dialled) addrs() []netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Clone(d.hosts)
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
