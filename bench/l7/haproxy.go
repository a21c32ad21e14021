package l7

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ravencni/raven/test/lab"
)

// Cipher between the proxies of both kinds (RFC 8446, appendix B.4): what Go chooses where the processor has AES.
const cipher = "TLS_AES_128_GCM_SHA256"

// haproxyDefaults write an access log, as Raven's proxy does.
const haproxyDefaults = `global
	log stdout format raw local0
	maxconn 8000
	ssl-default-bind-ciphersuites ` + cipher + `
	ssl-default-bind-options ssl-min-ver TLSv1.3
	ssl-default-server-ciphersuites ` + cipher + `
	ssl-default-server-options ssl-min-ver TLSv1.3
defaults
	log global
	timeout connect 10s
	timeout client 4h
	timeout server 4h
	option redispatch
`

// startHAProxy starts the two haproxies: the one in the cloud takes HTTP, or TCP that is TLS inside, and carries it in TLS 1.3 with
// client certificates to the one at the edge, which goes on to the node.
func (w *world) startHAProxy(ctx context.Context) ([]*lab.Process, error) {
	trust := fmt.Sprintf("ca-file %s verify required", w.keys.authority())
	in := fmt.Sprintf(`%s
frontend http
	mode http
	option httplog
	bind %s:%d
	default_backend edge-http
backend edge-http
	mode http
	http-reuse always
	server edge %s:%d ssl crt %s %s verifyhost %s
frontend tcp
	mode tcp
	option tcplog
	bind %s:%d
	default_backend edge-tcp
backend edge-tcp
	mode tcp
	server edge %s:%d ssl crt %s %s verifyhost %s
`, haproxyDefaults, w.ip[cloud], haproxyHTTP, w.public[edge], haproxyInner, w.keys.of(cloud), trust, edge,
		w.ip[cloud], haproxyTLS, w.public[edge], haproxyInner2, w.keys.of(cloud), trust, edge)
	out := fmt.Sprintf(`%s
frontend http
	mode http
	option httplog
	bind %s:%d ssl crt %s %s
	default_backend node-http
backend node-http
	mode http
	http-reuse always
	server node %s:%d
frontend tcp
	mode tcp
	option tcplog
	bind %s:%d ssl crt %s %s
	default_backend node-tcp
backend node-tcp
	mode tcp
	server node %s:%d
`, haproxyDefaults, w.public[edge], haproxyInner, w.keys.of(edge), trust, w.ip[nodeName], plainPort,
		w.public[edge], haproxyInner2, w.keys.of(edge), trust, w.ip[nodeName], tlsPort)
	var all []*lab.Process
	for _, of := range []struct{ host, text string }{{cloud, in}, {edge, out}} {
		file := filepath.Join(w.lab.Dir, "haproxy-"+of.host+".cfg")
		if err := os.WriteFile(file, []byte(of.text), 0o600); err != nil {
			return all, fmt.Errorf("write haproxy's configuration: %w", err)
		}
		p, err := w.run(ctx, of.host, "haproxy", "haproxy", "-db", "-f", file)
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
	return all, nil
}

// run starts a proxy on a host, with its log in the lab's folder.
func (w *world) run(ctx context.Context, host, kind, name string, args ...string) (*lab.Process, error) {
	log, err := os.OpenFile(w.log(host, kind), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of a proxy: %w", err)
	}
	defer log.Close()
	return w.lab.Host(host).Start(ctx, log, name, args...)
}

func (w *world) log(host, kind string) string {
	return filepath.Join(w.lab.Dir, "logs", kind+"-"+host+".log")
}

// logTails are the last words of a kind of proxy, for an error.
func (w *world) logTails(kind string) string {
	out := ""
	for _, host := range []string{cloud, edge} {
		text, err := os.ReadFile(w.log(host, kind))
		if err != nil {
			text = []byte(err.Error())
		}
		out += fmt.Sprintf("\n%s on %s: %s", kind, host, text[max(0, len(text)-1500):])
	}
	return out
}
