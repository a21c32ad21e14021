package regions_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
)

// kubelet stands in for the kubelet of a node, since no container runs here: it has the certificate and the paths of one,
// wants a client certificate, and answers each request with its node's name. On its other ports HTTP and TLS servers do
// the same.
type kubelet struct {
	node    string
	servers []*http.Server
	serving sync.WaitGroup
}

// startKubelet serves on a node until the test ends.
func (w *world) startKubelet(node string, a proxytest.Authority) {
	w.Helper()
	k := &kubelet{node: node}
	certificate := a.Issue(w.T, certificates.Grant{CommonName: "system:node:" + node, Organizations: []string{"system:nodes"},
		DNSNames: []string{node}, Server: true})
	private := &tls.Config{Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: proxytest.Pool(a)}
	public := &tls.Config{Certificates: []tls.Certificate{*certificate}}
	w.Cleanup(k.stop)
	for port, config := range map[string]*tls.Config{"10250": private, "9100": public, "10255": nil, "9445": nil} {
		var l net.Listener
		w.must(w.lab.Host(node).Do(func() (err error) {
			l, err = net.Listen("tcp", ":"+port)
			return err
		}))
		if config != nil {
			l = tls.NewListener(l, config)
		}
		handler := http.HandlerFunc(k.name)
		if port == "10250" {
			handler = k.serve
		}
		s := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
		k.servers = append(k.servers, s)
		k.serving.Go(func() { _ = s.Serve(l) })
	}
}

func (k *kubelet) stop() {
	for _, s := range k.servers {
		_ = s.Close() // hijacked connections end with their other side
	}
	k.serving.Wait()
}

func (k *kubelet) name(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, k.node) }

func (k *kubelet) serve(w http.ResponseWriter, r *http.Request) {
	switch first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); first {
	case "metrics":
		fmt.Fprintf(w, "raven_test_node{node=%q} 1\n", k.node)
	case "containerLogs":
		k.log(w, r)
	case "exec":
		if err := k.exec(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError) // ignored where the connection was taken over
		}
	default:
		http.NotFound(w, r)
	}
}

// log says a line, and where the client follows, another once it has read that one.
func (k *kubelet) log(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "first of %s\n", k.node)
	if r.URL.Query().Get("follow") == "true" {
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		fmt.Fprintf(w, "second of %s\n", k.node)
	}
}

// exec runs nothing: standard output gets the node's name and the command.
func (k *kubelet) exec(w http.ResponseWriter, r *http.Request) error {
	if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
		return err
	}
	const most = 4
	streams := make(chan httpstream.Stream, most)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		select {
		case streams <- s:
			return nil
		default:
			return errors.New("too many streams")
		}
	})
	if conn == nil {
		return nil // it has said why
	}
	defer conn.Close()
	want := map[string]bool{corev1.StreamTypeError: true}
	for kind, parameter := range map[string]string{
		corev1.StreamTypeStdin: "input", corev1.StreamTypeStdout: "output", corev1.StreamTypeStderr: "error",
	} {
		if r.URL.Query().Get(parameter) == "1" {
			want[kind] = true
		}
	}
	have := map[string]httpstream.Stream{}
	for len(have) < len(want) {
		select {
		case s := <-streams:
			have[s.Headers().Get(corev1.StreamType)] = s
		case <-conn.CloseChan():
			return nil
		}
	}
	fmt.Fprintf(have[corev1.StreamTypeStdout], "%s ran %s\n", k.node, strings.Join(r.URL.Query()["command"], " "))
	_, _ = io.WriteString(have[corev1.StreamTypeError], `{"metadata":{},"status":"Success"}`)
	for _, s := range have {
		_ = s.Close() // the client reads to the end
	}
	<-conn.CloseChan()
	return nil
}

// pod makes a pod of a node that the stand-in answers for.
func (w *world) pod(node string) string {
	w.Helper()
	name := "on-" + node
	_, err := server.Kubectl(w.Context(), fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q},
		"spec": {"nodeName": %q, "containers": [{"name": "main", "image": "none"}]}}`, name, node), "create", "-f", "-")
	w.must(err)
	w.kubectl("patch", "pod", name, "--subresource=status", "-p", `{"status": {"phase": "Running"}}`)
	return name
}
