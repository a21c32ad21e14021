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

func TestAnAgentWithoutFlagsStartsWithTheDefaults(t *testing.T) {
	want := "{EnableTunnel:true ForwardNodeIP:true Driver:ipsec ServiceCIDRs:[] TunnelPort:4500}"
	if got := fmt.Sprintf("%+v", Settings{}.Defaults()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
