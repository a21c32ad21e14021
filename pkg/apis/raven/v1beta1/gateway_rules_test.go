package v1beta1_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// specCase is a spec in YAML and what the API server's one refusal must say; nothing means that it is accepted.
type specCase struct {
	name    string
	spec    string
	refusal []string
}

var specCases = []specCase{
	{"an empty spec", `{}`, nil},
	{"an edge behind a NAT without publicIP", `{endpoints: [{nodeName: a, underNAT: true}]}`, nil},
	{"no proxy and no tunnel wanted", `{proxyConfig: {Replicas: 0}, tunnelConfig: {Replicas: 0}}`, nil},

	{"exposeType PublicIP", `{exposeType: PublicIP, endpoints: [{nodeName: a, publicIP: 203.0.113.7}]}`, nil},
	{"exposeType LoadBalancer", `{exposeType: LoadBalancer, endpoints: [{nodeName: a}]}`, nil},
	{"exposeType written empty", `{exposeType: "", endpoints: [{nodeName: a, underNAT: true}]}`, nil},
	{"another exposeType", `{exposeType: NodePort}`, []string{
		"spec.exposeType", `Unsupported value: "NodePort"`, "PublicIP", "LoadBalancer"}},
	{"exposeType in another case", `{exposeType: publicIP}`, []string{"spec.exposeType", "PublicIP"}},

	{"an exposed gateway behind a NAT", `{exposeType: PublicIP, endpoints: [{nodeName: a, underNAT: true}]}`, []string{
		"spec.endpoints: Invalid value", "set underNAT to false on every endpoint, or remove exposeType"}},
	{"a load-balanced gateway behind a NAT", `{exposeType: LoadBalancer, endpoints: [{nodeName: a, underNAT: true}]}`,
		[]string{"spec.endpoints: Invalid value", "remove exposeType"}},

	{"underNAT differs", `{endpoints: [{nodeName: a, underNAT: true}, {nodeName: b, underNAT: false}]}`, []string{
		"spec.endpoints: Invalid value", "underNAT must be the same on every endpoint"}},
	{"underNAT is true and absent", `{endpoints: [{nodeName: a, underNAT: true}, {nodeName: b}]}`, []string{
		"underNAT must be the same on every endpoint"}},
	{"underNAT is false and absent", `{endpoints: [{nodeName: a, underNAT: false}, {nodeName: b}]}`, nil},

	{"two proxy replicas with two proxies", `{proxyConfig: {Replicas: 2},
		endpoints: [{nodeName: a, type: proxy}, {nodeName: b, type: proxy}, {nodeName: a, type: tunnel}]}`, nil},
	{"two proxy replicas with one proxy", `{proxyConfig: {Replicas: 2},
		endpoints: [{nodeName: a, type: proxy}, {nodeName: b, type: tunnel}]}`, []string{
		"spec.proxyConfig.Replicas: Invalid value", "add endpoints or lower proxyConfig.Replicas"}},
	{"two proxy replicas without endpoints", `{proxyConfig: {Replicas: 2}}`, []string{"spec.proxyConfig.Replicas"}},
	{"one proxy replica without endpoints", `{proxyConfig: {Replicas: 1}}`, nil},
	{"a negative number of proxies", `{proxyConfig: {Replicas: -1}}`, []string{
		"spec.proxyConfig.Replicas: Invalid value: -1", "greater than or equal to 0"}},

	{"two tunnel replicas", `{tunnelConfig: {Replicas: 2}}`, []string{
		"spec.tunnelConfig.Replicas: Invalid value: 2", "not built yet", "set tunnelConfig.Replicas to 1"}},
	{"a negative number of tunnels", `{tunnelConfig: {Replicas: -1}}`, []string{
		"spec.tunnelConfig.Replicas: Invalid value: -1", "greater than or equal to 0"}},

	{"the highest port", `{endpoints: [{nodeName: a, port: 65535, publicPort: 65535}]}`, nil},
	{"port 0, which means the default", `{endpoints: [{nodeName: a, port: 0}]}`, nil},
	{"a port out of range", `{endpoints: [{nodeName: a, port: 65536}]}`, []string{
		"spec.endpoints[0].port: Invalid value: 65536", "less than or equal to 65535"}},
	{"a negative port", `{endpoints: [{nodeName: a, port: -1}]}`, []string{"spec.endpoints[0].port: Invalid value: -1"}},
	{"a public port out of range", `{endpoints: [{nodeName: a, publicPort: 70000}]}`, []string{
		"spec.endpoints[0].publicPort: Invalid value: 70000"}},

	{"one node for both types", `{endpoints: [{nodeName: a, type: proxy}, {nodeName: a, type: tunnel}]}`, nil},
	{"a node twice for one type", `{endpoints: [{nodeName: a, type: proxy}, {nodeName: a, type: proxy, port: 1}]}`,
		[]string{`spec.endpoints[1]: Duplicate value: {"nodeName":"a","type":"proxy"}`}},
	{"a node twice, once by the default type", `{endpoints: [{nodeName: a}, {nodeName: a, type: tunnel}]}`,
		[]string{`spec.endpoints[1]: Duplicate value: {"nodeName":"a","type":"tunnel"}`}},
	{"another type", `{endpoints: [{nodeName: a, type: vpn}]}`, []string{
		`spec.endpoints[0].type: Unsupported value: "vpn"`, `"proxy", "tunnel"`}},
	{"an endpoint without a node", `{endpoints: [{type: proxy}]}`, []string{"spec.endpoints[0].nodeName: Required value"}},
	{"an endpoint with an empty node", `{endpoints: [{nodeName: ""}]}`, []string{"spec.endpoints[0].nodeName"}},
}

func TestEachRuleOfAGatewaysSpec(t *testing.T) {
	cases := slices.Clone(specCases)
	for _, list := range []string{"", " ", "10255", "10255,9445", " 10255 , 9445 ", "1,65535", "80,80"} {
		cases = append(cases, specCase{"a list of ports " + list, fmt.Sprintf(
			`{proxyConfig: {proxyHTTPPort: %q, proxyHTTPSPort: %q}}`, list, list), nil})
	}
	for _, list := range []string{"0", "65536", "10255,", ",10255", "80,,81", "http", "-1", "80;81", "80 81", "1e3", "080"} {
		cases = append(cases,
			specCase{"bad HTTP ports " + list, fmt.Sprintf(`{proxyConfig: {proxyHTTPPort: %q}}`, list), []string{
				"spec.proxyConfig.proxyHTTPPort", "proxyHTTPPort is a comma list of ports from 1 to 65535"}},
			specCase{"bad HTTPS ports " + list, fmt.Sprintf(`{proxyConfig: {proxyHTTPSPort: %q}}`, list), []string{
				"spec.proxyConfig.proxyHTTPSPort", "proxyHTTPSPort is a comma list of ports from 1 to 65535"}})
	}
	for _, ip := range []string{"", "203.0.113.7", "0.0.0.0", "255.255.255.255", "2001:db8::7", "::", "::1", "fe80::",
		"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "2001:DB8:0:0:0:0:0:7"} {
		cases = append(cases, specCase{"publicIP " + ip, fmt.Sprintf(`{endpoints: [{nodeName: a, publicIP: %q}]}`, ip), nil})
	}
	for _, ip := range []string{"120.79.xxx.xxx", "203.0.113", "203.0.113.7.1", "203.0.113.256", "203.0.113.07", "1.2.3.4.",
		"203.0.113.7/32", "203.0.113.7:4500", "gw.example.com", " 203.0.113.7", "2001:db8::7::1", "1:2:3:4:5:6:7",
		"1:2:3:4:5:6:7:8:9", "1::2:3:4:5:6:7:8", "[2001:db8::7]", "2001:db8::12345", "2001:db8::7%eth0", ":", ":::", "1:"} {
		cases = append(cases, specCase{"bad publicIP " + ip, fmt.Sprintf(
			`{endpoints: [{nodeName: b, publicIP: ""}, {nodeName: a, publicIP: %q}]}`, ip), []string{
			"spec.endpoints[1].publicIP: Invalid value", "publicIP must be an IPv4 address"}})
	}
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		server := newAPIServer(t, "gateways", version)
		for _, c := range cases {
			t.Run(version+" "+c.name, func(t *testing.T) {
				errs := server.admit(t, gatewayWith(t, version, "spec", c.spec))
				if len(c.refusal) == 0 && len(errs) > 0 {
					t.Errorf("refused:\n%s", errorText(errs))
				}
				if len(c.refusal) > 0 && len(errs) != 1 {
					t.Errorf("%d refusals, want one:\n%s", len(errs), errorText(errs))
				}
				for _, want := range c.refusal {
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
