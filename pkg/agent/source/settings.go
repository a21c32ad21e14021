package source

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// Settings are what the agent's flags say about topology.Config. A flag that was given wins over raven-agent-config,
// which wins over the last known value, which wins over the default.
type Settings struct {
	// Driver is wireguard, ipsec or plain; empty: not given.
	Driver string
	// ForwardNodeIP is nil where the flag was not given.
	ForwardNodeIP *bool
	// TunnelPort is 0 where the flag was not given.
	TunnelPort int
	// ServiceCIDRs are the cluster's service ranges.
	ServiceCIDRs []netip.Prefix
	// ProxySources are empty where the flag was not given.
	ProxySources []netip.Prefix
}

// Defaults is the configuration of a fresh cluster without ConfigMaps and of an agent without flags.
func (s Settings) Defaults() topology.Config {
	return s.override(topology.Config{
		EnableTunnel:  true,
		ForwardNodeIP: true,
		Driver:        "ipsec",
		TunnelPort:    v1beta1.DefaultTunnelPort,
	})
}

func (s Settings) override(c topology.Config) topology.Config {
	if s.Driver != "" {
		c.Driver = s.Driver
	}
	if s.ForwardNodeIP != nil {
		c.ForwardNodeIP = *s.ForwardNodeIP
	}
	if s.TunnelPort != 0 {
		c.TunnelPort = s.TunnelPort
	}
	c.ServiceCIDRs = s.ServiceCIDRs
	if len(s.ProxySources) > 0 {
		c.ProxySources = s.ProxySources
	}
	return c
}

// apply lays the ConfigMaps over the last known configuration, and the flags over both. A key that is missing or makes
// no sense leaves the last known value as it is.
func (s Settings) apply(last topology.Config, configs map[string]map[string]string) (topology.Config, []topology.Problem) {
	c := last
	var problems []topology.Problem
	complain := func(object, reason, format string, args ...any) {
		problems = append(problems, topology.Problem{
			Object: "ConfigMap/" + object, Reason: reason, Message: fmt.Sprintf(format, args...),
		})
	}

	if v, ok := configs[switchesName]["enable-l3-tunnel"]; ok {
		c.EnableTunnel = strings.EqualFold(strings.TrimSpace(v), "true")
		if !c.EnableTunnel && !strings.EqualFold(strings.TrimSpace(v), "false") {
			complain(switchesName, ReasonBadValue, `enable-l3-tunnel is %q, which counts as "false"; write "true" or "false"`, v)
		}
	}

	settings := configs[settingsName]
	if v, ok := settings["vpn-driver"]; ok {
		if driver, err := ParseDriver(v); err != nil {
			complain(settingsName, ReasonBadValue, "vpn-driver: %v; %s stays", err, c.Driver)
		} else {
			c.Driver = driver
		}
	}
	if v, ok := settings["forward-node-ip"]; ok {
		if on, err := strconv.ParseBool(strings.ToLower(strings.TrimSpace(v))); err != nil {
			complain(settingsName, ReasonBadValue, `forward-node-ip is %q; write "true" or "false"; %t stays`, v, c.ForwardNodeIP)
		} else {
			c.ForwardNodeIP = on
		}
	}
	if v, ok := settings["tunnel-bind-addr"]; ok {
		if port, err := portOf(v); err != nil {
			complain(settingsName, ReasonBadValue, "tunnel-bind-addr: %v; port %d stays", err, c.TunnelPort)
		} else {
			c.TunnelPort = port
		}
	}
	if v, ok := settings["proxy-allowed-sources"]; ok {
		ranges, bad := ParseRanges(v)
		if len(bad) > 0 {
			complain(settingsName, ReasonBadValue, "proxy-allowed-sources: %s: no ranges; write them like 192.168.0.0/16, 10.0.0.7", strings.Join(bad, ", "))
		}
		if len(ranges) > 0 || len(bad) == 0 { // of a list without a good item nothing can be meant
			c.ProxySources = ranges
		}
	}
	if v := strings.TrimSpace(settings["nat-traversal"]); strings.EqualFold(v, "true") {
		complain(settingsName, ReasonNotBuilt,
			`nat-traversal is not built; gateways behind NAT reach one another through an exposed gateway; set it to "false"`)
	}
	return s.override(c), problems
}

// ParseDriver reads the name of a tunnel driver; libreswan is an alias of ipsec.
func ParseDriver(name string) (string, error) {
	switch n := strings.ToLower(strings.TrimSpace(name)); n {
	case "libreswan":
		return "ipsec", nil
	case "ipsec", "wireguard", "plain":
		return n, nil
	default:
		return "", fmt.Errorf("no tunnel driver is named %q: use wireguard, ipsec (or its alias libreswan) or plain", name)
	}
}

// ParseRanges reads a comma list of ranges and addresses; an address is a range of one. Items that are neither are
// returned quoted.
func ParseRanges(list string) (ranges []netip.Prefix, bad []string) {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		p, err := netip.ParsePrefix(item)
		if a, asAddr := netip.ParseAddr(item); asAddr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
		}
		if err != nil {
			bad = append(bad, strconv.Quote(item))
			continue
		}
		ranges = append(ranges, p.Masked())
	}
	return ranges, bad
}

// portOf reads the port of an address such as ":4500" or "0.0.0.0:4500"; the host part has no effect, as in the
// original, since a tunnel listens on every address of its node.
func portOf(addr string) (int, error) {
	_, text, ok := cutLast(strings.TrimSpace(addr), ":")
	if !ok {
		return 0, fmt.Errorf(`%q has no port: write it like ":4500"`, addr)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf(`%q has no port from 1 to 65535: write it like ":4500"`, addr)
	}
	return int(port), nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
