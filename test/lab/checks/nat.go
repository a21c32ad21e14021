package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ravencni/raven/test/lab"
)

// The virtual addresses of a Service, outside every pod and node prefix.
var virtual = map[int]netip.Addr{4: netip.MustParseAddr("10.96.0.10"), 6: netip.MustParseAddr("fd00:10:96::10")}

// VirtualIP: an address that the client's node translates to a pod of another region, as kube-proxy does for a Service.
var VirtualIP = Check{
	Name: "virtual-ip",
	Says: "a virtual IP that is translated to a pod in another region works, for pods and nodes, TCP and UDP",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		asked := 0
		for _, family := range []int{4, 6} {
			n, err := virtualIP(ctx, l, family)
			if err != nil {
				return "", fmt.Errorf("IPv%d: %w", family, err)
			}
			asked += n
		}
		return fmt.Sprintf("%d questions to the virtual addresses answered, with the client's own source", asked), nil
	},
}

func virtualIP(ctx context.Context, l *lab.Lab, family int) (asked int, err error) {
	server, err := findEnd(l, "qingdao-2/a")
	if err != nil {
		return 0, err
	}
	vip := virtual[family]
	node := l.Host("hangzhou-2")
	for _, protocol := range []string{"tcp", "udp"} {
		for _, chain := range []string{"PREROUTING", "OUTPUT"} {
			undo, err := iptables(ctx, node, family, "nat", chain, "-d", vip.String(), "-p", protocol, "--dport",
				fmt.Sprint(lab.EchoPort), "-j", "DNAT", "--to-destination",
				netip.AddrPortFrom(server.addr(family), lab.EchoPort).String())
			if err != nil {
				return 0, err
			}
			defer func() { err = errors.Join(err, undo()) }()
		}
	}
	for _, client := range []string{"hangzhou-2/a", "hangzhou-2"} {
		a, err := findEnd(l, client)
		if err != nil {
			return asked, err
		}
		for _, network := range []string{"tcp", "udp"} {
			c, err := a.host.Dial(ctx, network, netip.Addr{}, netip.AddrPortFrom(vip, lab.EchoPort))
			if err != nil {
				return asked, err
			}
			for range 30 {
				seen, _, err := lab.Exchange(ctx, c, "hello")
				if err := errors.Join(err, sameSource(network, seen, a.addr(family), err)); err != nil {
					return asked, errors.Join(fmt.Errorf("%s from %s: %w", network, a, err), c.Close())
				}
				asked++
			}
			if err := c.Close(); err != nil {
				return asked, fmt.Errorf("close the connection: %w", err)
			}
		}
	}
	return asked, nil
}

// flannelRules are those of a CNI that masquerades whatever leaves for another network than the pods'.
func flannelRules(family int) [][]string {
	pods, multicast := "10.244.0.0/16", "224.0.0.0/4"
	if family == 6 {
		pods, multicast = "fd00:10:244::/48", "ff00::/8"
	}
	return [][]string{ // as inserted, last first
		{"!", "-s", pods, "-d", pods, "-j", "MASQUERADE"},
		{"-s", pods, "!", "-d", multicast, "-j", "MASQUERADE"},
		{"-s", pods, "-d", pods, "-j", "RETURN"},
	}
}

// Masquerade: rules like flannel's on every node do not change the source of what crosses regions, and a NodePort
// keeps the masquerade that it needs.
var Masquerade = Check{
	Name: "masquerade",
	Says: "masquerade rules like flannel's do not touch cross-region traffic, and a NodePort keeps its masquerade",
	Run: func(ctx context.Context, l *lab.Lab) (evidence string, err error) {
		for _, family := range []int{4, 6} {
			if err := masquerade(ctx, l, family); err != nil {
				return "", fmt.Errorf("IPv%d: %w", family, err)
			}
		}
		return "sources kept pod -> node, node -> pod, pod -> pod; a NodePort's client seen as the node", nil
	},
}

func masquerade(ctx context.Context, l *lab.Lab, family int) (err error) {
	var undos []func() error
	defer func() {
		for _, undo := range undos {
			err = errors.Join(err, undo())
		}
	}()
	add := func(h *lab.Host, table, chain string, rule ...string) error {
		undo, err := iptables(ctx, h, family, table, chain, rule...)
		if err == nil {
			undos = append(undos, undo)
		}
		return err
	}
	for _, node := range l.Nodes() {
		for _, rule := range flannelRules(family) {
			if err := add(l.Host(node), "nat", "POSTROUTING", rule...); err != nil {
				return err
			}
		}
	}
	for _, p := range [][2]string{
		{"hangzhou-2/a", "qingdao-2"}, {"hangzhou-2", "qingdao-2/a"}, {"hangzhou-2/a", "qingdao-2/a"},
		{"hangzhou-1/a", "qingdao-1"}, {"cloud-1", "hangzhou-2/a"}, {"qingdao-2/a", "cloud-1"},
	} {
		if _, err := reach(ctx, l, p[0], p[1], family); err != nil {
			return fmt.Errorf("%s -> %s: %w", p[0], p[1], err)
		}
	}
	return nodePort(ctx, l, family, add)
}

// nodePort: a neighbour on the LAN asks node hangzhou-2 at a port that leads to a pod in another region. The answer
// must come back through that node, so kube-proxy marks the connection for a masquerade.
func nodePort(ctx context.Context, l *lab.Lab, family int, add func(*lab.Host, string, string, ...string) error) error {
	const port = 30007
	node, err := findEnd(l, "hangzhou-2")
	if err != nil {
		return err
	}
	client, err := findEnd(l, "hangzhou-1")
	if err != nil {
		return err
	}
	server, err := findEnd(l, "qingdao-2/a")
	if err != nil {
		return err
	}
	own := node.addr(family).String()
	match := []string{"-d", own, "-p", "tcp", "--dport", fmt.Sprint(port)}
	err = errors.Join(
		add(node.host, "nat", "POSTROUTING", "-m", "mark", "--mark", "0x4000/0x4000", "-j", "MASQUERADE"),
		add(node.host, "nat", "PREROUTING", append(match, "-j", "DNAT", "--to-destination",
			netip.AddrPortFrom(server.addr(family), lab.EchoPort).String())...),
		add(node.host, "mangle", "PREROUTING", append(match, "-j", "MARK", "--or-mark", "0x4000")...),
	)
	if err != nil {
		return err
	}
	c, err := client.host.Dial(ctx, "tcp", netip.Addr{}, netip.AddrPortFrom(node.addr(family), port))
	if err != nil {
		return fmt.Errorf("NodePort: %w", err)
	}
	defer c.Close()
	for range 30 {
		seen, _, err := lab.Exchange(ctx, c, "hello")
		if err != nil {
			return fmt.Errorf("NodePort: %w", err)
		}
		if seen != node.addr(family) && !node.node.Pods4.Contains(seen) && !node.node.Pods6.Contains(seen) {
			return fmt.Errorf("NodePort: the pod saw %s, want an address of %s", seen, node.host.Name)
		}
	}
	return nil
}
