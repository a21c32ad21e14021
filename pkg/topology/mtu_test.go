package topology

import (
	"slices"
	"testing"
)

func TestPathMTU(t *testing.T) {
	for _, x := range []struct {
		name string
		make func(c *cluster)
		node string
		// own underlay MTU of the node.
		own    int
		region string
		want   int
		// problem at a node; empty for none.
		problem string
	}{
		{"a member's way is as narrow as WireGuard", nil, "hangzhou-2", 1500, "region/gw-cloud", 1500 - 95, ""},
		{"jumbo frames carry jumbo packets", func(c *cluster) { everyMTU(c, 9000) }, "hangzhou-2", 9000, "region/gw-qingdao", 9000 - 95, ""},
		{"an unpublished MTU counts as 1500", func(c *cluster) { everyMTU(c, 0) }, "hangzhou-2", 9000, "region/gw-qingdao", 1500 - 95, ""},
		{"a negative MTU counts as 1500", func(c *cluster) { everyMTU(c, -5) }, "hangzhou-1", 0, "region/gw-qingdao", 1500 - 95, ""},
		{"the member's own link may be the narrowest", nil, "hangzhou-2", 1420, "region/gw-cloud", 1420 - 50, ""},
		{"the own gateway's link may be the narrowest", func(c *cluster) { c.endpoint("hangzhou-1").Status.UnderlayMTU = 1400 }, "hangzhou-2", 1500, "region/gw-cloud", 1400 - 95, ""},
		{"the relay's link counts", func(c *cluster) { c.endpoint("cloud-1").Status.UnderlayMTU = 1440 }, "hangzhou-2", 1500, "region/gw-qingdao", 1440 - 95, ""},
		{"the far gateway's link counts", func(c *cluster) { c.endpoint("qingdao-1").Status.UnderlayMTU = 1440 }, "hangzhou-1", 1500, "region/gw-qingdao", 1440 - 95, ""},
		{"the far gateway's link does not count for another region", func(c *cluster) { c.endpoint("qingdao-1").Status.UnderlayMTU = 1440 }, "hangzhou-1", 1500, "region/gw-cloud", 1500 - 95, ""},
		{"the plain driver costs VXLAN", plain, "hangzhou-2", 1500, "region/gw-qingdao", 1450, ""},
		{"the plain driver over IPv6 costs more", func(c *cluster) {
			plain(c)
			c.gatewayNamed("gw-cloud").Status.ActiveEndpoints[0].PublicIP = "2001:db8::1"
		}, "hangzhou-2", 1500, "region/gw-qingdao", 1430, ""},
		{"the plain driver dialled over IPv6 costs more as well", func(c *cluster) {
			plain(c)
			c.gatewayNamed("gw-cloud").Status.ActiveEndpoints[0].PublicIP = "2001:db8::1"
		}, "cloud-1", 1500, "region/gw-hangzhou", 1430, ""},
		{"a far overlay over IPv6 counts", func(c *cluster) {
			plain(c)
			n := c.nodeNamed("qingdao-1")
			n.Status.Addresses = n.Status.Addresses[1:]
		}, "hangzhou-2", 1500, "region/gw-qingdao", 1430, ""},
		{"IPsec costs its AEAD ciphers", func(c *cluster) { c.Config.Driver = DriverIPsec; everyDriver(c, DriverIPsec) }, "hangzhou-1", 1450, "region/gw-cloud", 1450 - 85, ""},
		{"IPsec in user space takes 1400 bytes", func(c *cluster) { c.Config.Driver = DriverIPsec; everyDriver(c, DriverIPsec) }, "hangzhou-1", 1500, "region/gw-cloud", 1400, ""},
		{"IPv6 keeps its minimum on a narrow path", func(c *cluster) { c.endpoint("cloud-1").Status.UnderlayMTU = 1300 }, "hangzhou-2", 1500, "region/gw-qingdao", 1280, "cloud-1"},
		{"IPv4 alone goes below", func(c *cluster) {
			ipv4Only(c)
			c.endpoint("cloud-1").Status.UnderlayMTU = 1300
		}, "hangzhou-2", 1500, "region/gw-qingdao", 1300 - 95, ""},
		{"IPv4 has a minimum too", func(c *cluster) {
			ipv4Only(c)
			c.endpoint("cloud-1").Status.UnderlayMTU = 100
		}, "hangzhou-2", 1500, "region/gw-qingdao", 576, "cloud-1"},
		{"a member of the region is as far as VXLAN", nil, "hangzhou-1", 1500, "node/hangzhou-2", 1450, ""},
		{"a member's narrow link counts", func(c *cluster) { c.endpoint("hangzhou-2").Status.UnderlayMTU = 1400 }, "hangzhou-1", 1500, "node/hangzhou-2", 1350, ""},
		{"loopback's MTU is no packet size", func(c *cluster) { everyMTU(c, 1<<20) }, "hangzhou-1", 65536, "node/hangzhou-2", 65535 - 50, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := tutorial()
			if x.make != nil {
				x.make(c)
			}
			p := Compile(c.State, x.node, Local{UnderlayMTU: x.own})
			if h := hopOf(p, x.region); h == nil || h.MTU != x.want {
				t.Errorf("next hop %v, want MTU %d", h, x.want)
			}
			reported := slices.ContainsFunc(p.Problems, func(y Problem) bool {
				return y.Reason == ReasonMTUTooSmall && y.Object == "Node/"+x.problem
			})
			if reported != (x.problem != "") {
				t.Errorf("problems %v", p.Problems)
			}
			soundAlone(t, p)
		})
	}
}

func everyMTU(c *cluster, mtu int) {
	for _, e := range c.Endpoints {
		e.Status.UnderlayMTU = mtu
	}
}

func everyDriver(c *cluster, driver string) {
	for _, e := range c.Endpoints {
		e.Status.Tunnels[0].Driver = driver
	}
}

func plain(c *cluster) {
	c.Config.Driver = DriverPlain
	everyDriver(c, DriverPlain)
}

func ipv4Only(c *cluster) {
	for _, n := range c.Nodes {
		n.Status.Addresses, n.Spec.PodCIDRs = n.Status.Addresses[:1], n.Spec.PodCIDRs[:1]
	}
}

func TestDeviceMTUs(t *testing.T) {
	p := tutorial().plan("hangzhou-1")
	equal(t, "overlay", 1450, p.Overlay.MTU)
	equal(t, "tunnel", 1405, p.Tunnel.MTU)

	c := tutorial()
	for _, n := range c.Nodes {
		n.Status.Addresses = n.Status.Addresses[1:]
	}
	equal(t, "overlay over IPv6", 1430, c.plan("hangzhou-1").Overlay.MTU)

	narrow := Compile(tutorial().State, "hangzhou-1", Local{UnderlayMTU: 1300})
	equal(t, "overlay with IPv6 inside", 1280, narrow.Overlay.MTU)
	equal(t, "tunnel with IPv6 inside", 1280, narrow.Tunnel.MTU)
	if len(narrow.Problems) == 0 {
		t.Error("a narrow underlay is not reported")
	}
	c = tutorial()
	ipv4Only(c)
	narrow = Compile(c.State, "hangzhou-1", Local{UnderlayMTU: 1300})
	equal(t, "overlay without IPv6", 1250, narrow.Overlay.MTU)
	equal(t, "problems without IPv6", 0, len(narrow.Problems))
}
