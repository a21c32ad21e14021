package rtnl

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/netns"
)

const table = 4000

func run(t *testing.T, command string) {
	t.Helper()
	fields := strings.Fields(command)
	if out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// onWire runs f with a connection and the index of eth0 (10.0.0.1/24, fd00::1/64).
func onWire(t *testing.T, f func(t *testing.T, c *Conn, eth0 int)) {
	t.Helper()
	netns.Run(t, func(t *testing.T) {
		netns.Veth(t, netns.End{In: netns.Current(t), Name: "eth0", Addresses: []string{"10.0.0.1/24", "fd00::1/64"}},
			netns.End{In: netns.New(t), Name: "wire"})
		c, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		routes, err := c.Routes(unix.AF_INET, unix.RT_TABLE_MAIN)
		if err != nil || len(routes) != 1 {
			t.Fatalf("main table: %+v, %v", routes, err)
		}
		f(t, c, routes[0].Device)
	})
}

func route(prefix, gateway string, device int) Route {
	return Route{
		Prefix: netip.MustParsePrefix(prefix), Type: unix.RTN_UNICAST, Protocol: 114, Device: device,
		Gateway: netip.MustParseAddr(gateway), MTU: 1400,
	}
}

func add(r Route) Request {
	return Request{Type: unix.RTM_NEWROUTE, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, Payload: r.Payload(table)}
}

func TestARouteReadBackEqualsTheOneWritten(t *testing.T) {
	onWire(t, func(t *testing.T, c *Conn, eth0 int) {
		onLink := route("10.5.0.0/16", "192.0.2.1", eth0)
		onLink.OnLink, onLink.Metric, onLink.Source = true, 7, netip.MustParseAddr("10.0.0.1")
		scoped := Route{Prefix: netip.MustParsePrefix("10.6.0.0/16"), Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_LINK, Protocol: 114, Device: eth0}
		v6 := route("fd05::/16", "fd00::9", eth0)
		v6.Metric, v6.Source = 1024, netip.MustParseAddr("fd00::1")
		for _, want := range []Route{
			route("10.4.0.0/16", "10.0.0.9", eth0), onLink, scoped, v6,
			route("10.7.0.0/16", "fe80::9", eth0),
			route("0.0.0.0/0", "10.0.0.9", eth0),
			{Prefix: netip.MustParsePrefix("10.8.0.0/16"), Type: unix.RTN_UNREACHABLE, Protocol: 114},
			{Prefix: netip.MustParsePrefix("fd08::/16"), Type: unix.RTN_THROW, Protocol: 114, Metric: 1024},
			{Prefix: netip.MustParsePrefix("::/0"), Type: unix.RTN_THROW, Protocol: 114, Metric: 1024},
		} {
			if errs := c.Write([]Request{add(want)}); errs[0] != nil {
				t.Fatalf("write %v: %v", want, errs[0])
			}
			got, err := c.Routes(Family(want.Prefix.Addr()), table)
			if err != nil || len(got) != 1 || got[0].Route != want {
				t.Fatalf("wrote %+v, read %+v, %v", want, got, err)
			}
			if errs := c.Write([]Request{{Type: unix.RTM_DELROUTE, Payload: got[0].Payload}}); errs[0] != nil {
				t.Fatalf("delete %v by its dump: %v", want, errs[0])
			}
			if got, err := c.Routes(Family(want.Prefix.Addr()), table); err != nil || len(got) != 0 {
				t.Fatalf("after the deletion there is %+v, %v", got, err)
			}
		}
	})
}

func TestARouteWithMoreThanWeShowIsNotTakenForOurs(t *testing.T) {
	onWire(t, func(t *testing.T, c *Conn, _ int) {
		for _, r := range []string{
			"nexthop via 10.0.0.9 nexthop via 10.0.0.8", "via 10.0.0.9 mtu 1400 advmss 1000", "via 10.0.0.9 mtu lock 1400",
			"encap ip id 1 dst 192.0.2.1 via 10.0.0.9",
		} {
			run(t, "ip route replace 10.4.0.0/16 table 4000 "+r)
			got, err := c.Routes(unix.AF_INET, table)
			if err != nil || len(got) != 1 || !got[0].Other {
				t.Errorf("%s: read %+v, %v", r, got, err)
			}
		}
	})
}

func TestAFailedWriteAmongThousandsCostsOnlyItself(t *testing.T) {
	onWire(t, func(t *testing.T, c *Conn, eth0 int) {
		const count, bad = 3000, 1700
		var requests []Request
		for i := range count {
			r := route("10.4.0.0/16", "10.0.0.9", eth0)
			r.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24)
			if i >= bad && i < bad+200 {
				r.Gateway = netip.MustParseAddr("192.0.2.1") // not on-link
			}
			requests = append(requests, add(r))
		}
		for i, err := range c.Write(requests) {
			if failed := i >= bad && i < bad+200; failed != (err != nil) {
				t.Fatalf("write %d: %v", i, err)
			} else if failed && (!errors.Is(err, unix.ENETUNREACH) || !strings.Contains(err.Error(), "Nexthop has invalid gateway")) {
				t.Fatalf("write %d lacks the kernel's words: %v", i, err)
			}
		}
		got, err := c.Routes(unix.AF_INET, table)
		if err != nil || len(got) != count-200 {
			t.Errorf("%d routes, %v", len(got), err)
		}
	})
}

func TestATableThatDoesNotExistIsEmpty(t *testing.T) {
	onWire(t, func(t *testing.T, c *Conn, _ int) {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			if got, err := c.Routes(family, 4999); err != nil || len(got) != 0 {
				t.Errorf("%s: %v, %v", FamilyName(family), got, err)
			}
		}
	})
}

func TestARuleReadBackEqualsTheOneWrittenAndAForeignSelectorShows(t *testing.T) {
	onWire(t, func(t *testing.T, c *Conn, _ int) {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			want := Rule{Family: family, Priority: 100, Table: table, Protocol: 114, Incoming: "absent0"}
			errs := c.Write([]Request{{Type: unix.RTM_NEWRULE, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Payload: want.Payload()}})
			if errs[0] != nil {
				t.Fatal(errs[0])
			}
			rules, err := c.Rules(family)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, r := range rules {
				if r.Rule == want {
					found = true
					if errs := c.Write([]Request{{Type: unix.RTM_DELRULE, Payload: r.Payload}}); errs[0] != nil {
						t.Errorf("delete by its dump: %v", errs[0])
					}
				}
			}
			if !found {
				t.Errorf("no %+v in %+v", want, rules)
			}
		}
		for _, selector := range []string{"fwmark 1", "from 10.0.0.0/8", "oif eth0", "suppress_prefixlength 0", "not to 10.0.0.0/8"} {
			run(t, "ip rule add priority 100 table 4000 protocol 114 "+selector)
			rules, err := c.Rules(unix.AF_INET)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rules {
				if r.Table == table && !r.Other {
					t.Errorf("%s does not show in %+v", selector, r)
				}
			}
			run(t, "ip rule del priority 100 table 4000")
		}
	})
}

func TestDescribeNamesTheObject(t *testing.T) {
	for want, r := range map[string]Request{
		"set route 10.4.0.0/16 table 4000":                 add(route("10.4.0.0/16", "10.0.0.9", 2)),
		"delete IPv6 rule iif a0 priority 100 table 4000":  {Type: unix.RTM_DELRULE, Payload: Rule{Family: unix.AF_INET6, Priority: 100, Table: table, Incoming: "a0"}.Payload()},
		"set neighbour 10.0.0.9 -> 02:00:00:00:00:01":      {Type: unix.RTM_NEWNEIGH, Payload: Neighbour{Family: unix.AF_INET, Addr: netip.MustParseAddr("10.0.0.9"), MAC: MAC{2, 5: 1}}.Payload(114)},
		"delete forwarding entry 02:00:00:00:00:01 -> ::9": {Type: unix.RTM_DELNEIGH, Payload: Neighbour{Family: unix.AF_BRIDGE, Addr: netip.MustParseAddr("::9"), MAC: MAC{2, 5: 1}}.Payload(114)},
		"netlink request of type 16":                       {Type: unix.RTM_NEWLINK},
		"netlink request of type 24":                       {Type: unix.RTM_NEWROUTE, Payload: []byte{1}},
	} {
		if got := Describe(r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzParsersSurviveAnyBytes(f *testing.F) {
	f.Add(route("10.4.0.0/16", "10.0.0.9", 2).Payload(table))
	f.Add(Rule{Family: unix.AF_INET, Table: table}.Payload())
	f.Fuzz(func(_ *testing.T, b []byte) {
		parseRoute(b)
		ParseRule(b)
		parseNeighbour(b)
		for len(b) > 0 {
			m, rest, err := nextMessage(b)
			if err != nil {
				return
			}
			_ = answerError(m)
			b = rest
		}
	})
}
