package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ravencni/raven/test/lab"
)

// secondNetwork is the other network of hangzhou: its nodes' way out, while their own addresses stay on the first.
var secondNetwork = netip.MustParsePrefix("172.16.12.0/24")

// secondCards lists the nodes of hangzhou that have a card in both networks, with their addresses in the second.
var secondCards = map[string]string{"hangzhou-1": "172.16.12.103/24", "hangzhou-2": "172.16.12.104/24"}

// RaiseStrictSources gives the nodes of hangzhou a second card by which their default routes leave, and makes every
// node refuse packets whose source its routes would not answer by the same device: rp_filter=1 on all devices that
// there are, on conf/all and for those to come.
func RaiseStrictSources(ctx context.Context, l *lab.Lab) error {
	box := lab.Box("hangzhou")
	err := errors.Join(l.Host(box).AddBridge("lan2"),
		l.Host(box).AddAddr("lan2", netip.PrefixFrom(secondNetwork.Addr().Next(), secondNetwork.Bits())),
		l.Host(box).NFT(ctx, `insert rule inet lab forward iifname "lan2" oifname "wan" accept`))
	for node, address := range secondCards {
		h, port := l.Host(node), node+"-2"
		e := l.Connect(node, "eth1", box, port)
		if e == nil {
			e = errors.Join(l.Host(box).Enslave(port, "lan2"), h.AddAddr("eth1", netip.MustParsePrefix(address)))
		}
		if e == nil {
			_, e = h.Run(ctx, "ip", "route", "replace", "default", "via", secondNetwork.Addr().Next().String(), "dev", "eth1")
		}
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("give nodes a second card: %w", err)
	}
	for _, node := range l.Nodes() {
		h := l.Host(node)
		links, e := h.Netlink().LinkList()
		if e != nil {
			return fmt.Errorf("list the devices of %s: %w", node, e)
		}
		names := []string{"all", "default"}
		for _, link := range links {
			names = append(names, link.Attrs().Name)
		}
		for _, name := range names {
			err = errors.Join(err, h.Sysctl("net/ipv4/conf/"+name+"/rp_filter", "1"))
		}
	}
	return err
}

// StrictSources needs RaiseStrictSources.
var StrictSources = Check{
	Name: "strict-sources",
	Says: "rp_filter=1 on every device of the hosts and on all still stands, and the tunnel leaves by the second card",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		strict := 0
		for _, node := range l.Nodes() {
			h := l.Host(node)
			links, err := h.Netlink().LinkList()
			if err != nil {
				return "", fmt.Errorf("list the devices of %s: %w", node, err)
			}
			want := map[string]string{"all": "1"}
			for _, link := range links {
				want[link.Attrs().Name] = "1"
				if name := link.Attrs().Name; name == "raven0" || name == l.TunnelDevice() {
					want[name] = "2"
				}
			}
			for name, value := range want {
				got, err := h.ReadSysctl("net/ipv4/conf/" + name + "/rp_filter")
				if err == nil && got != value {
					err = fmt.Errorf("rp_filter of %s on %s is %s, want %s", name, node, got, value)
				}
				if err != nil {
					return "", err
				}
				strict++
			}
		}
		capture, err := l.Host("hangzhou-1").Capture("eth1")
		if err != nil {
			return "", err
		}
		_, err = reachAll(ctx, l, [][2]string{{"hangzhou-2/a", "qingdao-2/a"}})
		if err == nil {
			_, err = capture.Await(ctx, "the tunnel's UDP", func(p lab.Packet) bool {
				return p.Protocol == lab.UDP && p.DstPort == 4500 && p.Outgoing
			})
		}
		_, stopErr := capture.Stop()
		return fmt.Sprintf("%d values as set up, 2 (loose) on Raven's own devices only", strict), errors.Join(err, stopErr)
	},
}
