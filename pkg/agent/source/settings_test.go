package source

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ravencni/raven/pkg/topology"
)

func TestConfigComesFromFlagsThenConfigMapsThenTheLastKnown(t *testing.T) {
	no := false
	defaults := topology.Config{EnableTunnel: true, ForwardNodeIP: true, Driver: "ipsec", TunnelPort: 4500}
	last := topology.Config{EnableTunnel: false, ForwardNodeIP: false, Driver: "wireguard", TunnelPort: 51820}
	type maps = map[string]map[string]string
	for _, c := range []struct {
		name    string
		flags   Settings
		last    topology.Config
		configs maps
		want    topology.Config
		reasons []string
	}{
		{name: "a fresh cluster without ConfigMaps is on", last: defaults, want: defaults},
		{name: "missing objects leave the last known values", last: last, want: last},
		{name: "missing keys leave the last known values", last: last,
			configs: maps{switchesName: {"enable-l7-proxy": "true"}, settingsName: {}}, want: last},
		{name: "on is true in any case", last: last, configs: maps{switchesName: {"enable-l3-tunnel": "TRUE"}},
			want: topology.Config{EnableTunnel: true, Driver: "wireguard", TunnelPort: 51820}},
		{name: "anything else is off, and named", last: defaults, configs: maps{switchesName: {"enable-l3-tunnel": "yes"}},
			want: topology.Config{ForwardNodeIP: true, Driver: "ipsec", TunnelPort: 4500}, reasons: []string{ReasonBadValue}},
		{name: "every key of raven-agent-config counts", last: defaults,
			configs: maps{settingsName: {"vpn-driver": "WireGuard", "forward-node-ip": "False", "tunnel-bind-addr": "0.0.0.0:4510"}},
			want:    topology.Config{EnableTunnel: true, Driver: "wireguard", TunnelPort: 4510}},
		{name: "libreswan is ipsec", last: last, configs: maps{settingsName: {"vpn-driver": "libreswan"}},
			want: topology.Config{Driver: "ipsec", TunnelPort: 51820}},
		{name: "a value that means nothing leaves the last known one and is named", last: defaults,
			configs: maps{settingsName: {"vpn-driver": "openvpn", "forward-node-ip": "maybe", "tunnel-bind-addr": "4500"}},
			want:    defaults, reasons: []string{ReasonBadValue, ReasonBadValue, ReasonBadValue}},
		{name: "a port out of range is named", last: defaults, configs: maps{settingsName: {"tunnel-bind-addr": ":65536"}},
			want: defaults, reasons: []string{ReasonBadValue}},
		{name: "sources of the proxy are ranges and addresses", last: last,
			configs: maps{settingsName: {"proxy-allowed-sources": "192.168.7.9/16, 10.0.0.7,fd00::1,"}},
			want:    topology.Config{Driver: "wireguard", TunnelPort: 51820, ProxySources: ranges("192.168.0.0/16", "10.0.0.7/32", "fd00::1/128")}},
		{name: "a bad source costs itself", last: topology.Config{ProxySources: ranges("10.0.0.0/8")},
			configs: maps{settingsName: {"proxy-allowed-sources": "192.168.0.0/33,192.168.0.0/16"}},
			want:    topology.Config{ProxySources: ranges("192.168.0.0/16")}, reasons: []string{ReasonBadValue}},
		{name: "a list of bad sources alone admits nobody new", last: topology.Config{ProxySources: ranges("10.0.0.0/8")},
			configs: maps{settingsName: {"proxy-allowed-sources": "all"}},
			want:    topology.Config{ProxySources: ranges("10.0.0.0/8")}, reasons: []string{ReasonBadValue}},
		{name: "an empty list of sources is the default", last: topology.Config{ProxySources: ranges("10.0.0.0/8")},
			configs: maps{settingsName: {"proxy-allowed-sources": " "}}, want: topology.Config{}},
		{name: "the flag's sources win", flags: Settings{ProxySources: ranges("10.1.0.0/16")},
			configs: maps{settingsName: {"proxy-allowed-sources": "10.2.0.0/16"}}, want: topology.Config{ProxySources: ranges("10.1.0.0/16")}},
		{name: "NAT traversal is not built", last: defaults, configs: maps{settingsName: {"nat-traversal": "true"}},
			want: defaults, reasons: []string{ReasonNotBuilt}},
		{name: "a flag wins", last: last, flags: Settings{Driver: "plain", ForwardNodeIP: &no, TunnelPort: 4600,
			ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}},
			configs: maps{settingsName: {"vpn-driver": "ipsec", "forward-node-ip": "true", "tunnel-bind-addr": ":4510"}},
			want: topology.Config{Driver: "plain", TunnelPort: 4600,
				ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, problems := c.flags.apply(c.last, c.configs)
			if d := cmp.Diff(fmt.Sprintf("%+v", c.want), fmt.Sprintf("%+v", got)); d != "" {
				t.Error(d)
			}
			var reasons []string
			for _, p := range problems {
				reasons = append(reasons, p.Reason)
			}
			if d := cmp.Diff(c.reasons, reasons); d != "" {
				t.Error(d)
			}
		})
	}
}

func ranges(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func TestAnAgentWithoutFlagsStartsWithTheDefaults(t *testing.T) {
	want := "{EnableTunnel:true ForwardNodeIP:true Driver:ipsec ServiceCIDRs:[] TunnelPort:4500 ProxySources:[]}"
	if got := fmt.Sprintf("%+v", Settings{}.Defaults()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
