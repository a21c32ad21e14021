package controller_test

import (
	"fmt"
	"os"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// What the tutorial prints of two Gateways' status, with addresses for its x's: the exposed one's from its spec, the
// other's as the exposed one sees it.
const (
	cloudPrints = `
activeEndpoints:
- config:
    enable-l7-proxy: "true"
  nodeName: izwz9dohcv74iegqecp4axz
  port: 10262
  publicIP: 120.79.0.1
  type: proxy
- config:
    enable-l3-tunnel: "true"
  nodeName: izwz9dohcv74iegqecp4axz
  port: 4500
  publicIP: 120.79.0.1
  type: tunnel
nodes:
- nodeName: izwz9dohcv74iegqecp4axz
  privateIP: 192.168.0.195
  subnets:
  - 10.224.0.128/26
- nodeName: izwz9ey0js5z7mornclpd6z
  privateIP: 192.168.0.196
  subnets:
  - 10.224.0.0/26
`
	hangzhouPrints = `
activeEndpoints:
- config:
    enable-l7-proxy: "true"
  nodeName: izbp15inok0kbfkg3in52rz
  port: 10262
  publicIP: 120.79.0.2
  type: proxy
- config:
    enable-l3-tunnel: "true"
  nodeName: izbp15inok0kbfkg3in52rz
  port: 4500
  publicIP: 120.79.0.2
  type: tunnel
nodes:
- nodeName: izbp15inok0kbfkg3in52rz
  privateIP: 172.16.2.103
  subnets:
  - 10.224.1.128/26
- nodeName: izbp15inok0kbfkg3in52sz
  privateIP: 172.16.2.104
  subnets:
  - 10.224.1.0/26
`
)

func TestTheTutorialsGatewaysGetTheStatusThatItPrints(t *testing.T) {
	r := newRig(t)
	r.start()
	for _, n := range []struct{ name, gateway, ip, pods string }{
		{"izwz9dohcv74iegqecp4axz", "gw-cloud", "192.168.0.195", "10.224.0.128/26"},
		{"izwz9ey0js5z7mornclpd6z", "gw-cloud", "192.168.0.196", "10.224.0.0/26"},
		{"izbp15inok0kbfkg3in52rz", "gw-hangzhou", "172.16.2.103", "10.224.1.128/26"},
		{"izbp15inok0kbfkg3in52sz", "gw-hangzhou", "172.16.2.104", "10.224.1.0/26"},
		{"izm5eb24dmjfimuaybpnqzz", "gw-qingdao", "172.16.1.89", "10.224.2.128/26"},
		{"izm5eb24dmjfimuaybpnr0z", "gw-qingdao", "172.16.1.90", "10.224.2.0/26"},
	} {
		r.label(r.node(n.name, "", n.ip, n.pods), n.gateway)
	}
	manifests, err := os.ReadFile("../apis/raven/v1beta1/testdata/tutorial.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gw-cloud", "gw-hangzhou", "gw-qingdao"} {
		r.removed(&v1beta1.Gateway{}, name)
	}
	if _, err := server.Kubectl(t.Context(), string(manifests), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	r.awaitActive("gw-cloud", tunnel, "izwz9dohcv74iegqecp4axz")
	r.endpoint("izwz9dohcv74iegqecp4axz", v1beta1.TunnelEndpointStatus{ObservedAddresses: []v1beta1.ObservedAddress{
		{NodeName: "izbp15inok0kbfkg3in52rz", Address: "120.79.0.2:4500"}}})
	for name, prints := range map[string]string{"gw-cloud": cloudPrints, "gw-hangzhou": hangzhouPrints} {
		var want map[string]any
		if err := yaml.Unmarshal([]byte(prints), &want); err != nil {
			t.Fatal(err)
		}
		r.await("the status that the tutorial prints of "+name, func() string {
			out, err := server.Kubectl(t.Context(), "", "get", "gateway", name, "-o", "yaml")
			if err != nil {
				return err.Error()
			}
			var got struct {
				Status map[string]any `json:"status"`
			}
			if err := yaml.Unmarshal([]byte(out), &got); err != nil {
				return err.Error()
			}
			return missing("status", want, got.Status)
		})
	}
}

// missing says what of want is not in got; "": all is. More fields than wanted are well; more items of a list are not.
func missing(path string, want, got any) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s is %v", path, got)
		}
		for key := range w {
			if m := missing(path+"."+key, w[key], g[key]); m != "" {
				return m
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Sprintf("%s is %v, want %d items", path, got, len(w))
		}
		for i := range w {
			if m := missing(fmt.Sprintf("%s[%d]", path, i), w[i], g[i]); m != "" {
				return m
			}
		}
	default:
		if want != got {
			return fmt.Sprintf("%s is %v, want %v", path, got, want)
		}
	}
	return ""
}
