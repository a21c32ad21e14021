package regions_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ravencni/raven/pkg/controller"
	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/election"
	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/test/cluster"
	"github.com/ravencni/raven/test/lab"
)

// sameAddresses is the tutorial's cluster whose three regions have one another's IPv4 subnet and node addresses.
func sameAddresses() lab.Spec {
	s := lab.Tutorial()
	cloud := s.Regions[0]
	for r := range s.Regions {
		s.Regions[r].LAN4 = cloud.LAN4
		for i := range s.Regions[r].Nodes {
			s.Regions[r].Nodes[i].IP4 = cloud.Nodes[i].IP4
		}
	}
	return s
}

var edgeNodes = []string{"hangzhou-1", "hangzhou-2", "qingdao-1", "qingdao-2"}

// TestNodesAreReachedByNameWhereAddressesConflict has an API server that reaches nodes of regions with the same addresses,
// first by the egress selector and then by DNS.
func TestNodesAreReachedByNameWhereAddressesConflict(t *testing.T) {
	w := newWorld(t, sameAddresses())
	kubelets := proxytest.NewAuthority(t)
	for _, node := range edgeNodes {
		w.startKubelet(node, kubelets)
		w.pod(node)
	}
	for _, step := range []struct {
		name string
		run  func(*world, proxytest.Authority)
	}{
		{"conflicting addresses are named, and pods talk", conflictsAreNamed},
		{"front ends reach each node and never its namesake", frontEnds},
		{"an agent gets its own node's certificate only", ownCertificateOnly},
		{"another authority signs, and no request is lost", authorityChanges},
		{"kubectl works through the egress selector", egressSelector},
		{"kubectl works by DNS", byDNS},
	} {
		passed := t.Run(step.name, func(t *testing.T) {
			outer := w.T
			w.T = t
			defer func() { w.T = outer }()
			step.run(w, kubelets)
		})
		if !passed {
			t.FailNow()
		}
	}
}

func conflictsAreNamed(w *world, _ proxytest.Authority) {
	for _, name := range []string{"gw-cloud", "gw-hangzhou", "gw-qingdao"} {
		w.awaitReason(name, election.ConditionCIDRConflict, election.ReasonConflict)
		c := meta.FindStatusCondition(w.gateway(name).Status.Conditions, election.ConditionCIDRConflict)
		if !strings.Contains(c.Message, "192.168.0.19") {
			w.Errorf("%s does not name an address: %s", name, c.Message)
		}
	}
	probes := w.probes([2]string{"hangzhou-2/a", "qingdao-2/a"}, [2]string{"qingdao-1/a", "cloud-2/a"}, [2]string{"cloud-1/a", "hangzhou-1/a"})
	w.answered(probes, 20, patience)
	_, account := w.finish(probes)
	w.Log(account)
	for _, node := range w.lab.Nodes() {
		out, err := w.lab.Host(node).Run(w.Context(), "ip", "route", "show", "table", "9027")
		w.must(err)
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "192.168.0.") {
				w.Errorf("%s routes a conflicting address: %s", node, line)
			}
		}
	}
}

// fromCloud connects from cloud-2, a node of the proxy's region that is none. The test closes the connection.
func (w *world) fromCloud(address string) (c net.Conn, err error) {
	err = w.lab.Host("cloud-2").Do(func() (err error) {
		c, err = net.Dial("tcp", address)
		return err
	})
	if err == nil {
		w.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// ask makes a request on a connection, and returns the answer's words.
func ask(c net.Conn, host string) (string, error) {
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return strings.TrimSpace(string(text)), err
}

const proxyAddress = "192.168.0.195"

func frontEnds(w *world, kubelets proxytest.Authority) {
	for _, node := range edgeNodes {
		for _, port := range []string{"10255", "9445"} {
			host := node + ":" + port
			w.await(patience, "answer of "+host, func(context.Context) error {
				c, err := w.fromCloud(proxyAddress + ":10264")
				if err != nil {
					return err
				}
				said, err := ask(c, host)
				if err == nil && said != node {
					err = fmt.Errorf("it says %q", said)
				}
				return err
			})
		}
	}
	out := w.kubectl("-n", "kube-system", "get", "service", services.InternalName, "-o",
		`jsonpath={.spec.ports[?(@.name=="https-9100")].targetPort}`)
	for _, node := range edgeNodes {
		w.await(patience, "TLS with "+node, func(context.Context) error {
			c, err := w.fromCloud(net.JoinHostPort(proxyAddress, out))
			if err != nil {
				return err
			}
			said, err := ask(tls.Client(c, &tls.Config{RootCAs: proxytest.Pool(kubelets), ServerName: node}), node)
			if err == nil && said != node {
				err = fmt.Errorf("it says %q", said)
			}
			return err
		})
	}
}

// ownCertificateOnly asks with the token of an agent's pod for its own node and for another one.
func ownCertificateOnly(w *world, _ proxytest.Authority) {
	config, err := server.PodUser(w.Context(), controller.Namespace, cluster.AgentAccount, "cloud-2")
	w.must(err)
	content, err := cluster.Kubeconfig(config)
	w.must(err)
	kubeconfig := w.write("inside.kubeconfig", content)
	for node, allowed := range map[string]bool{"cloud-2": true, "cloud-1": false} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		w.must(err)
		request, err := certificates.NewRequest(key, node, certificates.Names{})
		w.must(err)
		name := "asked-" + node
		w.csrAs(kubeconfig, name, request, `["digital signature", "server auth", "client auth"]`)
		if !allowed {
			message := w.awaitText("csr", name, `{.status.conditions[?(@.type=="Denied")].message}`)
			if !strings.Contains(message, `bound to node "cloud-2"`) {
				w.Errorf("the denial says %s", message)
			}
			continue
		}
		w.awaitText("csr", name, "{.status.certificate}")
	}
}

// csrAs creates a CertificateSigningRequest with the rights of a kubeconfig.
func (w *world) csrAs(kubeconfig, name string, request []byte, usages string) {
	w.Helper()
	_, err := server.KubectlAs(w.Context(), kubeconfig, fmt.Sprintf(`{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
		"metadata": {"name": %q}, "spec": {"signerName": %q, "usages": %s, "request": %q}}`,
		name, certificates.SignerName, usages, base64.StdEncoding.EncodeToString(request)), "create", "--validate=false", "-f", "-")
	w.must(err)
}

// awaitText waits until a field of an object is not empty.
func (w *world) awaitText(kind, name, path string) (text string) {
	w.Helper()
	w.await(patience, path+" of "+kind+" "+name, func(ctx context.Context) error {
		out, err := server.Kubectl(ctx, "", "get", kind, name, "-o", "jsonpath="+path)
		if text = out; err == nil && out == "" {
			err = fmt.Errorf("it is empty")
		}
		return err
	})
	return text
}

// write puts a file into the lab's folder, and returns its path.
func (w *world) write(name string, text []byte) string {
	w.Helper()
	path := filepath.Join(w.lab.Dir, name)
	w.must(os.WriteFile(path, text, 0o600))
	return path
}

func writePair(w *world, name string, c *tls.Certificate) (certificate, key string) {
	w.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	w.must(err)
	return w.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})),
		w.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// kubeletFlags are what every API server here has to reach kubelets with.
func kubeletFlags(w *world, kubelets proxytest.Authority) []string {
	w.Helper()
	certificate, key := writePair(w, "kubelet-client", kubelets.Issue(w.T, certificates.Grant{CommonName: "kube-apiserver", Client: true}))
	return []string{"--kubelet-preferred-address-types=Hostname,InternalIP", "--kubelet-client-certificate=" + certificate, "--kubelet-client-key=" + key}
}

// restartAPIServer gives the API server other flags.
func (w *world) restartAPIServer(flags ...string) {
	w.Helper()
	w.must(server.StopAPIServer())
	server.SetAPIServer(flags...)
	w.must(server.StartAPIServer(w.Context()))
}

// kubectlReaches has kubectl ask each of the edges' nodes for what goes through the API server.
func (w *world) kubectlReaches() {
	w.Helper()
	for _, node := range edgeNodes {
		for what, c := range map[string]struct{ args, want string }{
			"metrics": {"get --raw /api/v1/nodes/" + node + "/proxy/metrics", fmt.Sprintf("raven_test_node{node=%q} 1\n", node)},
			"logs":    {"logs on-" + node, "first of " + node + "\n"},
			"logs -f": {"logs -f on-" + node, "first of " + node + "\nsecond of " + node + "\n"},
			"exec":    {"exec on-" + node + " -- date", node + " ran date\n"},
		} {
			w.await(patience, what+" of "+node, func(ctx context.Context) error {
				out, err := server.Kubectl(ctx, "", strings.Fields(c.args)...)
				if err == nil && out != c.want {
					err = lab.Final(fmt.Errorf("it says %q, not %q", out, c.want))
				}
				return err
			})
		}
	}
}

// reachable gives this process's network, where the API server is, an address of the cloud: what a node of the cloud has by
// its LAN, or, with a Service's address, by kube-proxy. ports are passed on to a host's from cloud-2.
func (w *world) reachable(address string, ports map[string]string) {
	w.Helper()
	lo, err := netlink.LinkByName("lo")
	w.must(err)
	at := netip.MustParseAddr(address)
	w.must(netlink.AddrReplace(lo, &netlink.Addr{IPNet: &net.IPNet{IP: at.AsSlice(), Mask: net.CIDRMask(32, 32)}}))
	for port, to := range ports {
		d, err := openInward(w.lab.Host("cloud-2"), net.JoinHostPort(address, port), to)
		w.must(err)
		w.Cleanup(func() { w.check(d.close()) })
	}
}

// resolveNodes has names of nodes resolve as edge-tunnel-nodes says. A file of hosts stands in for CoreDNS. It returns the
// internal Service's address.
func (w *world) resolveNodes() (service string) {
	w.Helper()
	hosts := w.kubectl("-n", "kube-system", "get", "configmap", "edge-tunnel-nodes", "-o", "jsonpath={.data.tunnel-nodes}")
	service = w.kubectl("-n", "kube-system", "get", "service", services.InternalName, "-o", "jsonpath={.spec.clusterIP}")
	for _, node := range edgeNodes {
		if !strings.Contains(hosts+"\n", service+"\t"+node+"\n") {
			w.Errorf("edge-tunnel-nodes does not send %s to %s:\n%s", node, service, hosts)
		}
	}
	w.must(unix.Mount(w.write("hosts", []byte("127.0.0.1\tlocalhost\n"+hosts)), "/etc/hosts", "", unix.MS_BIND, ""))
	w.Cleanup(func() { w.check(unix.Unmount("/etc/hosts", unix.MNT_DETACH)) })
	return service
}

// egressSelector follows docs/proxy.md. The names must resolve, since the API server looks them up before it proxies to
// a node, whichever way it goes then.
func egressSelector(w *world, kubelets proxytest.Authority) {
	key := w.askForClient("raven-apiserver")
	certificate, err := base64.StdEncoding.DecodeString(w.awaitText("csr", "raven-apiserver", "{.status.certificate}"))
	w.must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	w.must(err)
	manifest, err := os.ReadFile("../../../manifests/proxy/egress-selector.yaml")
	w.must(err)
	config := strings.NewReplacer("PROXY_ADDRESS", proxyAddress, "/etc/kubernetes/raven", w.lab.Dir).Replace(string(manifest))
	w.write("ca.crt", []byte(w.kubectl("-n", "kube-system", "get", "configmap", "raven-proxy-ca", "-o", `jsonpath={.data.ca\.crt}`)))
	w.write("apiserver.crt", certificate)
	w.write("apiserver.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	w.reachable(proxyAddress, map[string]string{"10267": proxyAddress + ":10267"})

	w.resolveNodes()
	w.restartAPIServer(append(kubeletFlags(w, kubelets), "--egress-selector-config-file="+w.write("egress-selector.yaml", []byte(config)))...)
	w.kubectlReaches()
}

// byDNS reaches the internal Service, for which a door stands in for kube-proxy.
func byDNS(w *world, kubelets proxytest.Authority) {
	service := w.resolveNodes()
	w.reachable(service, map[string]string{"10250": proxyAddress + ":10263"})
	authority := w.write("kubelet-ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: kubelets.Certificate.Raw}))

	w.restartAPIServer(append(kubeletFlags(w, kubelets), "--kubelet-certificate-authority="+authority)...)
	w.kubectlReaches()

	// Without the kubelets' authority an API server sends no server name for exec.
	w.restartAPIServer(kubeletFlags(w, kubelets)...)
	if out, err := server.Kubectl(w.Context(), "", "exec", "on-hangzhou-2", "--", "date"); err == nil {
		w.Errorf("a request without a server name reaches %s", out)
	}
	m, err := w.lab.Metrics(w.Context(), "cloud-1")
	w.must(err)
	if m.Sum("raven_proxy_refused_total", "front", "tls", "reason", "no-server-name") == 0 {
		w.Error("what had no server name was not counted")
	}
}
