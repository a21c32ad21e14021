package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Options of a control plane. The zero value is what most tests want.
type Options struct {
	// APIServer and ControllerManager hold more flags; a flag given here wins over the one that Start gives.
	APIServer, ControllerManager []string
	// Place is where a cluster with kubelets has its control plane; nil: beside this process, with Nodes that tests write.
	Place *Place
}

// Cluster is a running control plane.
type Cluster struct {
	dir      string
	root     string // of the checkout
	binaries string
	options  Options
	ca       *authority
	ports    *ports
	admin    *rest.Config

	etcd, api, manager, scheduler *process
	unlock                        func() error
}

const (
	serviceCIDR = "10.96.0.0/16"
	serviceIP   = "10.96.0.1" // the first of serviceCIDR: the Service kubernetes
	issuer      = "https://kubernetes.default.svc"
	// patience is how long one program may take to be ready, on a machine that is busy with other things.
	patience = 2 * time.Minute
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Start starts a control plane and returns when it is ready: the API server says so and the controllers have made the
// default ServiceAccount. ctx bounds the start only. It fails where the programs were not built yet, and names the
// command that builds them.
func Start(ctx context.Context, o Options) (c *Cluster, err error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	binaries, err := findBinaries(ctx, root)
	if err != nil {
		return nil, err
	}
	dir, unlock, err := makeFolder()
	if err != nil {
		return nil, err
	}
	c = &Cluster{dir: dir, root: root, binaries: binaries, options: o, unlock: unlock}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if err := c.inside(func() (err error) {
		c.ports, err = reservePorts(3)
		return err
	}); err != nil {
		return c, err
	}
	if err := c.makeCredentials(); err != nil {
		return c, err
	}
	if err := c.startEtcd(); err != nil {
		return c, err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return c, err
	}
	if err := c.startManager(); err != nil {
		return c, err
	}
	if o.Place != nil {
		if err := c.startScheduler(); err != nil {
			return c, err
		}
	}
	return c, c.awaitControllers(ctx)
}

// Stop ends every process and removes every file. It returns an error where a process had ended by itself before.
func (c *Cluster) Stop() error {
	var errs []error
	for _, p := range []*process{c.scheduler, c.manager, c.api, c.etcd} {
		if p != nil {
			errs = append(errs, p.kill())
		}
	}
	if c.ports != nil {
		errs = append(errs, c.ports.close())
	}
	errs = append(errs, os.RemoveAll(c.dir), c.unlock())
	return errors.Join(errs...)
}

func (c *Cluster) startEtcd() (err error) {
	client, peer := c.url("http", portEtcd), c.url("http", portPeer)
	c.etcd, err = c.run("etcd",
		"--data-dir="+filepath.Join(c.dir, "etcd"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
		"--socket-reuse-port", "--unsafe-no-fsync", "--log-level=warn",
	)
	return err
}

// StartAPIServer starts the API server, after StopAPIServer, at the same address, and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) (err error) {
	args := []string{
		"--etcd-servers=" + c.url("http", portEtcd),
		"--secure-port=" + c.ports.text(portAPI), "--permit-port-sharing",
		"--tls-cert-file=" + c.file("server.crt"), "--tls-private-key-file=" + c.file("server.key"),
		"--client-ca-file=" + c.file("ca.crt"),
		"--service-account-issuer=" + issuer, "--service-account-key-file=" + c.file("sa.pub"),
		"--service-account-signing-key-file=" + c.file("sa.key"),
		"--service-cluster-ip-range=" + serviceCIDR,
		"--authorization-mode=Node,RBAC", "--allow-privileged",
	}
	args = append(args, c.addressFlags()...)
	if c.api, err = c.run("kube-apiserver", override(args, c.options.APIServer)...); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(c.admin)
	if err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	return c.await(ctx, c.api, "the API server's /readyz", func(ctx context.Context) error {
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// SetAPIServer gives the API server other flags than Options has, from its next start on.
func (c *Cluster) SetAPIServer(flags ...string) { c.options.APIServer = flags }

// StopAPIServer ends the API server as a crash does. What it stored stays.
func (c *Cluster) StopAPIServer() error {
	err := c.api.kill()
	c.api = nil
	return err
}

func (c *Cluster) startManager() (err error) {
	args := []string{
		"--kubeconfig=" + c.file("admin.kubeconfig"), "--leader-elect=false", "--secure-port=0",
		"--service-account-private-key-file=" + c.file("sa.key"), "--root-ca-file=" + c.file("ca.crt"),
	}
	if c.options.Place == nil {
		// Nodes have no kubelet that renews a lease: their readiness is what a test writes.
		args = append(args, "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller")
	}
	c.manager, err = c.run("kube-controller-manager", override(args, c.options.ControllerManager)...)
	return err
}

// override returns the flags with those of more in the place of flags of the same name. (To say a flag once more is not
// enough: a list such as --controllers then has the items of both.)
func override(flags, more []string) []string {
	name := func(flag string) string {
		name, _, _ := strings.Cut(flag, "=")
		return name
	}
	kept := slices.DeleteFunc(slices.Clone(flags), func(flag string) bool {
		return slices.ContainsFunc(more, func(m string) bool { return name(m) == name(flag) })
	})
	return append(kept, more...)
}

func (c *Cluster) awaitControllers(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(c.admin)
	if err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	accounts := []string{metav1.NamespaceDefault, metav1.NamespaceSystem}
	return c.await(ctx, c.manager, "the controllers' first ServiceAccounts", func(ctx context.Context) error {
		for len(accounts) > 0 {
			if _, err := client.CoreV1().ServiceAccounts(accounts[0]).Get(ctx, "default", metav1.GetOptions{}); err != nil {
				return fmt.Errorf("get ServiceAccount %s/default: %w", accounts[0], err)
			}
			accounts = slices.Delete(accounts, 0, 1)
		}
		return nil
	})
}

// await asks until the answer is good, the process ends or the time is over.
func (c *Cluster) await(ctx context.Context, p *process, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("wait for %s: %s ended: %w\n%s", what, p.name, p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; the last answer: %w\n%s", what, ctx.Err(), err, p.tail())
		}
	}
}
