// Package speccases holds Gateway specs with what an API server must say to each: one table for the tests that have no
// API server and for those that have a real one.
package speccases

import (
	"fmt"
	"slices"
)

// Case is a spec and what becomes of it.
type Case struct {
	Name string
	// Spec is YAML.
	Spec string
	// Refusal is what the API server's one refusal must say, in parts; nothing means that the spec is accepted.
	Refusal []string
}

var plain = []Case{
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

// All returns every case: each rule accepted and refused.
func All() []Case {
	cases := slices.Clone(plain)
	for _, list := range []string{"", " ", "10255", "10255,9445", " 10255 , 9445 ", "1,65535", "80,80"} {
		cases = append(cases, Case{"a list of ports " + list, fmt.Sprintf(
			`{proxyConfig: {proxyHTTPPort: %q, proxyHTTPSPort: %q}}`, list, list), nil})
	}
	for _, list := range []string{"0", "65536", "10255,", ",10255", "80,,81", "http", "-1", "80;81", "80 81", "1e3", "080"} {
		cases = append(cases,
			Case{"bad HTTP ports " + list, fmt.Sprintf(`{proxyConfig: {proxyHTTPPort: %q}}`, list), []string{
				"spec.proxyConfig.proxyHTTPPort", "proxyHTTPPort is a comma list of ports from 1 to 65535"}},
			Case{"bad HTTPS ports " + list, fmt.Sprintf(`{proxyConfig: {proxyHTTPSPort: %q}}`, list), []string{
				"spec.proxyConfig.proxyHTTPSPort", "proxyHTTPSPort is a comma list of ports from 1 to 65535"}})
	}
	for _, ip := range []string{"", "203.0.113.7", "0.0.0.0", "255.255.255.255", "2001:db8::7", "::", "::1", "fe80::",
		"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "2001:DB8:0:0:0:0:0:7"} {
		cases = append(cases, Case{"publicIP " + ip, fmt.Sprintf(`{endpoints: [{nodeName: a, publicIP: %q}]}`, ip), nil})
	}
	for _, ip := range []string{"120.79.xxx.xxx", "203.0.113", "203.0.113.7.1", "203.0.113.256", "203.0.113.07", "1.2.3.4.",
		"203.0.113.7/32", "203.0.113.7:4500", "gw.example.com", " 203.0.113.7", "2001:db8::7::1", "1:2:3:4:5:6:7",
		"1:2:3:4:5:6:7:8:9", "1::2:3:4:5:6:7:8", "[2001:db8::7]", "2001:db8::12345", "2001:db8::7%eth0", ":", ":::", "1:"} {
		cases = append(cases, Case{"bad publicIP " + ip, fmt.Sprintf(
			`{endpoints: [{nodeName: b, publicIP: ""}, {nodeName: a, publicIP: %q}]}`, ip), []string{
			"spec.endpoints[1].publicIP: Invalid value", "publicIP must be an IPv4 address"}})
	}
	return cases
}
