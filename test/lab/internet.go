package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Internet is the name of the router between the regions' NAT boxes.
const Internet = "internet"

// Box is the name of a region's NAT box.
func Box(region string) string { return region + "-nat" }

// internetRules: the router carries packets between public addresses only and counts the others.
const internetRules = `
table inet lab {
	set public4 {
		type ipv4_addr; flags interval
		elements = { 203.0.113.0/24, 198.51.100.0/24 }
	}
	counter not_public { }
	chain forward {
		type filter hook forward priority filter; policy drop
		ip saddr @public4 ip daddr @public4 accept
		ip6 saddr 2001:db8::/32 ip6 daddr 2001:db8::/32 accept
		counter name not_public
	}
}`

// boxRules: a NAT box lets the LAN out under its own address and ever new ports, and answers in.
const boxRules = `
table inet lab {
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname "wan" masquerade random
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		iifname "lan" oifname "wan" accept
		ct state established,related accept
	}
	chain input {
		type filter hook input priority filter
		iifname "wan" ct state new drop
	}
}`

// NFT loads an nftables ruleset on the host.
func (h *Host) NFT(ctx context.Context, rules string) error {
	_, err := h.RunWith(ctx, strings.NewReader(rules), "nft", "-f", "-")
	return err
}

func (l *Lab) buildInternet(ctx context.Context) error {
	h, err := l.addHost(Internet, "")
	if err != nil {
		return err
	}
	return errors.Join(h.forward(), h.NFT(ctx, internetRules))
}

// buildBox makes a region's NAT box with its LAN, a bridge in the box's namespace.
func (l *Lab) buildBox(ctx context.Context, r *Region) error {
	box, err := l.addHost(Box(r.Name), "")
	if err != nil {
		return err
	}
	internet := l.Host(Internet)
	if err := connect(box, "wan", internet, wire(r.Name)); err != nil {
		return err
	}
	if err := box.AddBridge("lan"); err != nil {
		return err
	}
	return errors.Join(
		box.forward(),
		internet.AddAddr(wire(r.Name), r.Router),
		box.AddAddr("wan", r.Box),
		box.AddRoute(anywhere4, r.Router.Addr(), "wan"),
		box.AddAddr("lan", at(first(r.LAN4), r.LAN4)),
		box.AddAddr("lan", at(first(r.LAN6), r.LAN6)),
		box.NFT(ctx, boxRules),
		box.switchOnly(),
	)
}

// switchOnly keeps netfilter off what the host's bridges carry between their ports: a real switch has none.
func (h *Host) switchOnly() error {
	for _, family := range []string{"ip", "ip6"} {
		err := h.Sysctl("net/bridge/bridge-nf-call-"+family+"tables", "0")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// wire is the name of the router's device towards a box or node.
func wire(name string) string { return fmt.Sprintf("to-%.12s", name) }

var (
	anywhere4 = prefix("0.0.0.0/0")
	anywhere6 = prefix("::/0")
)
