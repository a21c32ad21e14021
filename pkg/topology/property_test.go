package topology

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// drawCluster makes a healthy cluster: hubs, regions that can be dialled, regions behind NAT; IPv4, IPv6 and both.
func drawCluster(t *rapid.T) *cluster {
	c := newCluster()
	c.Config.ForwardNodeIP = rapid.Bool().Draw(t, "forward node IPs")
	for r := range rapid.IntRange(1, 5).Draw(t, "regions") {
		name := fmt.Sprintf("region-%d", r)
		nodes := rapid.IntRange(1, 4).Draw(t, "nodes")
		active := fmt.Sprintf("%s-%d", name, rapid.IntRange(0, nodes-1).Draw(t, "active"))
		kind := rapid.SampledFrom([]string{"hub", "open", "nat", "nat", "nat"}).Draw(t, "kind")
		public := ""
		if kind != "nat" {
			public = fmt.Sprintf("203.0.113.%d", r+1)
		}
		gw := c.gateway(name, active, public)
		if kind == "open" {
			gw.Spec.ExposeType = v1beta1.ExposeNone
		}
		ip4, ip6 := rapid.Bool().Draw(t, "IPv4"), rapid.Bool().Draw(t, "IPv6")
		for n := range nodes {
			addNode(c, r, n, ip4 || !ip6, ip6)
			c.endpoint(fmt.Sprintf("%s-%d", name, n)).Status.UnderlayMTU = rapid.SampledFrom([]int{0, 1500, 1400, 9000}).Draw(t, "MTU")
		}
	}
	return c
}

func addNode(c *cluster, region, n int, ip4, ip6 bool) *corev1.Node {
	var ips, pods []string
	if ip4 {
		ips = append(ips, fmt.Sprintf("172.16.%d.%d", region, n+1))
		pods = append(pods, fmt.Sprintf("10.%d.%d.0/24", region, n))
	}
	if ip6 {
		ips = append(ips, fmt.Sprintf("fd00:1:%d::%d", region, n+1))
		pods = append(pods, fmt.Sprintf("fd00:2:%d:%d::/64", region, n))
	}
	gateway := fmt.Sprintf("region-%d", region)
	return c.node(fmt.Sprintf("%s-%d", gateway, n), gateway, ips, pods)
}

// pick draws an item by its index, which a failure's log shows in a word.
func pick[T any](t *rapid.T, from []T, what string) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, what)]
}

// spoil puts one bad or surprising thing into a cluster. Values come from small pools, so that they collide.
func spoil(t *rapid.T, c *cluster) {
	node, gw, te := pick(t, c.Nodes, "node"), pick(t, c.Gateways, "gateway"), pick(t, c.Endpoints, "endpoint")
	prefix := rapid.SampledFrom([]string{"", "rubbish", "10.0.0.0/24", "10.0.1.0/24", "10.1.0.0/24", "10.0.0.0/8", "10.0.0.128/25",
		"10.1.0.7/32", "172.16.0.0/24", "172.16.1.1/32", "203.0.113.1/32", "fd00:2::/32", "fd00:2:0:1::/64", "fd00:1:1::/48", "0.0.0.0/0"})
	address := rapid.SampledFrom([]string{"", "rubbish", "172.16.0.1", "172.16.1.2", "10.0.0.9", "203.0.113.1", "fd00:1:0::1", "fd00:2:1:1::5", "127.0.0.1"})
	name := rapid.SampledFrom([]string{"region-0", "region-1", "region-0-0", "region-1-0", "region-1-1", "nobody", ""})
	switch rapid.IntRange(0, 14).Draw(t, "what") {
	case 0:
		node.Spec.PodCIDRs = rapid.SliceOfN(prefix, 0, 3).Draw(t, "podCIDRs")
	case 1:
		node.Status.Addresses = nil
		for _, a := range rapid.SliceOfN(address, 0, 3).Draw(t, "addresses") {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
		}
	case 2:
		node.Labels[v1beta1.LabelGateway] = name.Draw(t, "label")
	case 3:
		gw.Status.ActiveEndpoints = nil
	case 4:
		gw.Status.ActiveEndpoints = append(gw.Status.ActiveEndpoints, &v1beta1.Endpoint{NodeName: name.Draw(t, "active")})
	case 5:
		if len(gw.Status.ActiveEndpoints) > 0 {
			e := gw.Status.ActiveEndpoints[0]
			e.PublicIP = address.Draw(t, "publicIP")
			e.UnderNAT = rapid.Bool().Draw(t, "underNAT")
		}
	case 6:
		gw.Annotations = map[string]string{v1beta1.AnnotationExtraSourceCIDRs: prefix.Draw(t, "extra") + "," + prefix.Draw(t, "extra")}
	case 7:
		te.Status.Tunnels = nil
	case 8:
		te.Status.Tunnels = []v1beta1.TunnelPort{{Driver: DriverWireGuard, PublicKey: keyOf(name.Draw(t, "key"))}}
	case 9:
		te.Status.UnderlayMTU = rapid.IntRange(-10, 1300).Draw(t, "MTU")
	case 10:
		gw.Status.Nodes = append(gw.Status.Nodes, v1beta1.NodeInfo{NodeName: node.Name, Subnets: rapid.SliceOfN(prefix, 0, 2).Draw(t, "subnets")})
	case 11:
		if p, err := ParsePrefix(prefix.Draw(t, "service")); err == nil {
			c.Config.ServiceCIDRs = append(c.Config.ServiceCIDRs, p)
		}
	case 12:
		c.Nodes = append(c.Nodes, node.DeepCopy(), nil)
	case 13:
		gw.Spec.ExposeType = rapid.SampledFrom([]v1beta1.ExposeType{"", v1beta1.ExposePublicIP, v1beta1.ExposeLoadBalancer}).Draw(t, "expose")
	case 14:
		c.Nodes = slices.DeleteFunc(c.Nodes, func(n *corev1.Node) bool { return n == nil || n == node && len(c.Nodes) > 1 })
	}
	c.Nodes = slices.DeleteFunc(c.Nodes, func(n *corev1.Node) bool { return n == nil })
}

func drawSpoiled(t *rapid.T) *cluster {
	c := drawCluster(t)
	for range rapid.IntRange(0, 6).Draw(t, "spoils") {
		spoil(t, c)
	}
	return c
}

func TestThePlansOfAllNodesFitTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		consistent(t, drawSpoiled(t).State)
	})
}

func TestInAHealthyClusterWithAHubEveryPacketArrives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		addHub(c, 9)
		if stopped := consistent(t, c.State); stopped != 0 {
			t.Fatalf("%d walks stopped", stopped)
		}
		for _, n := range c.Nodes {
			p := c.plan(n.Name)
			for _, x := range p.Problems {
				if x.Reason != ReasonMTUTooSmall {
					t.Fatalf("problem %v", x)
				}
			}
		}
	})
}

func TestNoPrefixIsInTwoRegions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawSpoiled(t)
		for _, n := range c.Nodes {
			p := c.plan(n.Name)
			for i, a := range p.Prefixes {
				for _, b := range p.Prefixes[i+1:] {
					if a.Prefix.Overlaps(b.Prefix) && a.NextHop != b.NextHop && (a.Scope == ScopeRemote || b.Scope == ScopeRemote) {
						t.Fatalf("%s: %v and %v overlap", n.Name, a, b)
					}
				}
			}
		}
	})
}

func TestAPlanIsTheSameWhateverTheOrderOfObjects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawSpoiled(t)
		self := pick(t, c.Nodes, "self").Name
		first := c.plan(self)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range 3 {
			shuffle(r, c.Nodes)
			shuffle(r, c.Gateways)
			shuffle(r, c.Endpoints)
			if again := c.plan(self); !reflect.DeepEqual(first, again) {
				t.Fatalf("plans differ:\n%+v\n%+v", first, again)
			}
		}
	})
}

func shuffle[T any](r *rand.Rand, s []T) {
	r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}

func TestCompileLeavesItsInputAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawSpoiled(t)
		local := Local{Throws: addrs("192.0.2.9", "192.0.2.1", "192.0.2.9"), Direct: rapid.Bool().Draw(t, "direct")}
		slices.Reverse(local.Throws)
		before := deepCopy(c.State)
		throws := slices.Clone(local.Throws)
		for _, n := range c.Nodes {
			Compile(c.State, n.Name, local)
		}
		if !reflect.DeepEqual(before, c.State) || !slices.Equal(throws, local.Throws) {
			t.Fatalf("input changed from\n%+v\nto\n%+v", before, c.State)
		}
	})
}

func deepCopy(s State) State {
	out := State{Config: s.Config}
	out.Config.ServiceCIDRs = slices.Clone(s.Config.ServiceCIDRs)
	for _, x := range s.Gateways {
		out.Gateways = append(out.Gateways, x.DeepCopy())
	}
	for _, x := range s.Nodes {
		out.Nodes = append(out.Nodes, x.DeepCopy())
	}
	for _, x := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, x.DeepCopy())
	}
	return out
}

func TestAddingANodeChangesNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		region := rapid.IntRange(0, len(c.Gateways)-1).Draw(t, "region")
		before := make(map[string]*Plan)
		for _, n := range c.Nodes {
			before[n.Name] = c.plan(n.Name)
		}
		ip4, ip6 := hasFamilies(c, region)
		added := addNode(c, region, 100, ip4, ip6)
		for name, was := range before {
			is := c.plan(name)
			if was.Region == c.Gateways[region].Name {
				// In its own region it becomes a neighbour; the ways to other regions stay.
				if !slices.Equal(onlyRemote(was.Prefixes), onlyRemote(is.Prefixes)) {
					t.Fatalf("%s: remote prefixes\n%v\nbecame\n%v", name, was.Prefixes, is.Prefixes)
				}
				continue
			}
			without(is, added)
			if !reflect.DeepEqual(was, is) {
				t.Fatalf("%s: adding %s changed\n%+v\nto\n%+v", name, added.Name, was, is)
			}
		}
	})
}

func hasFamilies(c *cluster, region int) (ip4, ip6 bool) {
	first, second, _ := InternalIPs(c.nodeNamed(fmt.Sprintf("region-%d-0", region)))
	return first.IsValid(), second.IsValid()
}

// without removes a node's prefixes from a Plan.
func without(p *Plan, n *corev1.Node) {
	gone := make(map[netip.Prefix]bool)
	for _, text := range n.Spec.PodCIDRs {
		gone[netip.MustParsePrefix(text)] = true
	}
	ip4, ip6, _ := InternalIPs(n)
	gone[hostPrefix(ip4)], gone[hostPrefix(ip6)] = true, true
	p.Prefixes = slices.DeleteFunc(p.Prefixes, func(x Prefix) bool { return gone[x.Prefix] })
	if p.Tunnel != nil {
		for i := range p.Tunnel.Peers {
			peer := &p.Tunnel.Peers[i]
			peer.Prefixes = slices.DeleteFunc(peer.Prefixes, func(x netip.Prefix) bool { return gone[x] })
		}
	}
}

func onlyRemote(in []Prefix) []Prefix {
	return slices.DeleteFunc(slices.Clone(in), func(x Prefix) bool { return x.Scope != ScopeRemote })
}

// A podCIDR that is wrong in any way loses itself, and no other prefix of any node.
func TestABadPodCIDRCostsOnlyItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		addHub(c, 9)
		victim := pick(t, c.Nodes, "victim")
		before := make(map[string]*Plan)
		for _, n := range c.Nodes {
			before[n.Name] = c.plan(n.Name)
		}
		i := rapid.IntRange(0, len(victim.Spec.PodCIDRs)-1).Draw(t, "item")
		lost := netip.MustParsePrefix(victim.Spec.PodCIDRs[i])
		victim.Spec.PodCIDRs[i] = rapid.SampledFrom([]string{"", "x", "10.0.0.0", "10.0.0.0/33", "::/0", "0.0.0.0/0", "224.0.0.0/8",
			"fe80::/64", "10.0.0.0/8", "fd00:2::/32", "10.0.0.0/24/24", "10.0.0.0/-1"}).Draw(t, "bad")
		bad, err := ParsePrefix(victim.Spec.PodCIDRs[i])
		covers := false
		for _, n := range c.Nodes {
			for _, text := range n.Spec.PodCIDRs {
				p, e := ParsePrefix(text)
				covers = covers || n != victim && e == nil && err == nil && bad.Overlaps(p)
			}
		}
		if err == nil && !covers {
			t.Skip("the wide prefix covers nobody's, so it is a good one")
		}
		for _, n := range c.Nodes {
			is := c.plan(n.Name)
			want := slices.DeleteFunc(slices.Clone(before[n.Name].Prefixes), func(x Prefix) bool { return x.Prefix == lost })
			if !slices.Equal(want, is.Prefixes) {
				t.Fatalf("%s: %q of %s changed\n%v\nto\n%v", n.Name, victim.Spec.PodCIDRs[i], victim.Name, want, is.Prefixes)
			}
			if len(is.Problems) == 0 {
				t.Fatalf("%s: no problem reported", n.Name)
			}
		}
	})
}
