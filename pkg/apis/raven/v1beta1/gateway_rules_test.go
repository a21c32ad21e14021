package v1beta1_test

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/pkg/apis/raven/speccases"
)

func TestEachRuleOfAGatewaysSpec(t *testing.T) {
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		server := newAPIServer(t, "gateways", version)
		for _, c := range speccases.All() {
			t.Run(version+" "+c.Name, func(t *testing.T) {
				errs := server.admit(t, gatewayWith(t, version, "spec", c.Spec))
				if len(c.Refusal) == 0 && len(errs) > 0 {
					t.Errorf("refused:\n%s", errorText(errs))
				}
				if len(c.Refusal) > 0 && len(errs) != 1 {
					t.Errorf("%d refusals, want one:\n%s", len(errs), errorText(errs))
				}
				for _, want := range c.Refusal {
					if !strings.Contains(errorText(errs), want) {
						t.Errorf("the refusal does not say %q:\n%s", want, errorText(errs))
					}
				}
			})
		}
	}
}

// gatewayWith makes a Gateway whose spec or status is the given YAML.
func gatewayWith(t *testing.T, version, part, value string) map[string]any {
	t.Helper()
	return decodeAll(t, []byte(fmt.Sprintf(
		"{apiVersion: raven.openyurt.io/%s, kind: Gateway, metadata: {name: gw}, %s: %s}", version, part, value)))[0]
}

// What the controller reports must never be refused because of a rule that is about what users may ask for.
func TestNoRuleOfSpecAppliesToStatus(t *testing.T) {
	server := newAPIServer(t, "gateways", "v1beta1")
	object := gatewayWith(t, "v1beta1", "status", `{activeEndpoints: [
		{nodeName: a, type: proxy, underNAT: true, publicIP: lb.example.com, config: {enable-l7-proxy: "true"}},
		{nodeName: a, type: proxy, underNAT: false},
		{nodeName: b, underNAT: true, publicIP: 203.0.113.7, config: {enable-l3-tunnel: "true", publicKey: x}}],
		activeEndpoint: {nodeName: b, publicIP: lb.example.com}, nodeCount: 1,
		nodes: [{nodeName: a, privateIP: 192.168.0.1, subnets: [10.244.0.0/24]}]}`)
	object["spec"] = map[string]any{"exposeType": "PublicIP"}
	if errs := server.admit(t, object); len(errs) > 0 {
		t.Errorf("the status is refused:\n%s", errorText(errs))
	}
}

func TestDefaultsSayWhatAbsentFieldsMean(t *testing.T) {
	server := newAPIServer(t, "gateways", "v1beta1")
	object := gatewayWith(t, "v1beta1", "spec", `{proxyConfig: {proxyHTTPPort: "10255"}, endpoints: [{nodeName: a}]}`)
	if errs := server.admit(t, object); len(errs) > 0 {
		t.Fatalf("refused:\n%s", errorText(errs))
	}
	got, err := yaml.Marshal(object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	const want = `endpoints:
- nodeName: a
  type: tunnel
proxyConfig:
  Replicas: 1
  proxyHTTPPort: "10255"
tunnelConfig:
  Replicas: 1
`
	if string(got) != want {
		t.Errorf("after defaulting:\n%swant:\n%s", got, want)
	}
}
