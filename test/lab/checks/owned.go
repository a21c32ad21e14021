package checks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// owned is something in a node's kernel that belongs to Raven.
type owned struct {
	node, name string
	// list prints one object a line; the first line that has all of the words is the one.
	list  string
	words []string
	// remove makes the command that deletes the object from its line.
	remove func(line string) string
	// label of the event that brings it back.
	label string
}

// ipDel deletes what `ip ... show` printed.
func ipDel(command string) func(string) string {
	return func(line string) string { return command + " " + line }
}

// tunnelDevice stands for the device of the lab's driver.
const tunnelDevice = "TUNNEL"

// on puts the lab's tunnel device where it belongs.
func (o owned) on(device string) owned {
	put := func(text string) string { return strings.ReplaceAll(text, tunnelDevice, device) }
	words, remove := slices.Clone(o.words), o.remove
	for i := range words {
		words[i] = put(words[i])
	}
	o.list, o.words = put(o.list), words
	o.remove = func(line string) string { return put(remove(line)) }
	return o
}

// ownedObjects are one of each kind, on a gateway and on a member.
var ownedObjects = []owned{
	{"hangzhou-2", "rule to 9027", "ip rule show prio 100", []string{"9027"}, ruleDel("ip rule"), "[RULE]"},
	{"hangzhou-2", "IPv6 rule to 9027", "ip -6 rule show prio 100", []string{"9027"}, ruleDel("ip -6 rule"), "[RULE]"},
	{"hangzhou-1", "rule to 9028", "ip rule show prio 100", []string{"9028"}, ruleDel("ip rule"), "[RULE]"},
	{"hangzhou-1", "IPv6 rule to 9028", "ip -6 rule show prio 100", []string{"9028"}, ruleDel("ip -6 rule"), "[RULE]"},
	{"hangzhou-2", "route", "ip route show table 9027", []string{"raven0", "/24"}, ipDel("ip route del table 9027"), "[ROUTE]"},
	{"hangzhou-2", "IPv6 route", "ip -6 route show table 9027", []string{"raven0", "/64"}, ipDel("ip -6 route del table 9027"), "[ROUTE]"},
	{"hangzhou-1", "tunnel route", "ip route show table 9027", []string{tunnelDevice, "/24"}, ipDel("ip route del table 9027"), "[ROUTE]"},
	{"hangzhou-1", "throw route", "ip route show table 9027", []string{"throw"}, ipDel("ip route del table 9027"), "[ROUTE]"},
	{"hangzhou-1", "IPv6 throw route", "ip -6 route show table 9027", []string{"throw"}, ipDel("ip -6 route del table 9027"), "[ROUTE]"},
	{"hangzhou-1", "in-region route", "ip route show table 9028", []string{"raven0"}, ipDel("ip route del table 9028"), "[ROUTE]"},
	{"hangzhou-1", "IPv6 in-region route", "ip -6 route show table 9028", []string{"raven0"}, ipDel("ip -6 route del table 9028"), "[ROUTE]"},
	{"hangzhou-2", "neighbour", "ip -4 neigh show dev raven0 nud permanent", []string{"lladdr"}, neighDel, "[NEIGH]"},
	{"hangzhou-2", "IPv6 neighbour", "ip -6 neigh show dev raven0 nud permanent", []string{"lladdr"}, neighDel, "[NEIGH]"},
	{"hangzhou-2", "FDB entry", "bridge fdb show dev raven0", []string{"dst"}, fdbDel, "[FDB]"},
	{"hangzhou-2", "address", "ip -4 -o address show dev raven0 scope global", []string{"inet"}, addrDel("raven0"), "[ADDR]"},
	{"hangzhou-2", "IPv6 address", "ip -6 -o address show dev raven0 scope global", []string{"inet6"}, addrDel("raven0"), "[ADDR]"},
	{"hangzhou-1", "tunnel address", "ip -4 -o address show dev " + tunnelDevice + " scope global", []string{"inet"}, addrDel(tunnelDevice), "[ADDR]"},
	{"hangzhou-2", "nft rule", "nft -a list chain inet raven prerouting", []string{"handle", "iifname"}, nftRuleDel, "[NFT]# new generation"},
	{"hangzhou-1", "nft table", "nft list tables", []string{"inet raven"}, func(string) string { return "nft delete table inet raven" }, "[NFT]# new generation"},
}

// OwnedComeBack deletes one object of each kind by hand and sees it come back with one write.
var OwnedComeBack = Check{
	Name: "owned-come-back",
	Says: "each owned object that is deleted by hand comes back with exactly one write",
	Run: func(ctx context.Context, l *lab.Lab) (_ string, err error) {
		monitors := map[string]*lab.Monitor{}
		defer func() {
			for _, m := range monitors {
				err = errors.Join(err, m.Stop())
			}
		}()
		for _, o := range ownedObjects {
			if monitors[o.node] == nil {
				if monitors[o.node], err = l.Host(o.node).Monitor(ctx); err != nil {
					return "", err
				}
			}
			if e := o.on(l.TunnelDevice()).comesBack(ctx, l, monitors[o.node]); e != nil {
				err = errors.Join(err, fmt.Errorf("%s on %s: %w", o.name, o.node, e))
			}
		}
		return fmt.Sprintf("%d kinds of objects", len(ownedObjects)), errors.Join(err, roundTrip(ctx, l))
	},
}

func (o owned) comesBack(ctx context.Context, l *lab.Lab, m *lab.Monitor) error {
	h := l.Host(o.node)
	line, err := o.find(ctx, h)
	if err != nil {
		return err
	}
	late, err := m.Events(ctx)
	if err != nil {
		return err
	}
	if len(late) > 0 {
		return fmt.Errorf("before it was removed there came: %s", strings.Join(late, "; "))
	}
	// An address takes the routes along that send from it; they come back after it.
	var routes map[string]lab.Kernel
	if o.label == "[ADDR]" {
		if routes, err = routesOf(ctx, l); err != nil {
			return err
		}
	}
	if _, err := h.Run(ctx, "sh", "-c", o.remove(line)); err != nil {
		return err
	}
	err = lab.Await(ctx, "it to come back", func(ctx context.Context) error {
		now, err := o.find(ctx, h)
		if err == nil && !sameObject(now, line) {
			err = fmt.Errorf("%q came back as %q", line, now)
		}
		if err != nil || routes == nil {
			return err
		}
		withIt, err := routesOf(ctx, l)
		if diff := routes[o.node].Diff(withIt[o.node]); err == nil && diff != "" {
			err = fmt.Errorf("its routes have not come back:\n%s", diff)
		}
		return err
	})
	if err != nil {
		return err
	}
	events, err := m.Events(ctx)
	if err != nil {
		return err
	}
	writes := slices.DeleteFunc(slices.Clone(events), func(e string) bool {
		return !strings.HasPrefix(e, o.label) || strings.HasPrefix(e, o.label+"Deleted") || isSecondNotice(e)
	})
	if len(writes) != 1 {
		return fmt.Errorf("%d writes brought it back: %s", len(writes), strings.Join(events, "; "))
	}
	return nil
}

// isSecondNotice: of each write to a VXLAN device's forwarding database Linux 6.1 and 6.12 tell twice, by the driver and without the
// destination, which every entry has there, once more.
func isSecondNotice(event string) bool {
	return strings.HasPrefix(event, "[FDB]") && !strings.Contains(event, " dst ")
}

func (o owned) find(ctx context.Context, h *lab.Host) (string, error) {
	out, err := h.Run(ctx, "sh", "-c", o.list)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		missing := slices.ContainsFunc(o.words, func(w string) bool { return !strings.Contains(line, w) })
		if !missing {
			return strings.TrimSpace(line), nil
		}
	}
	return "", fmt.Errorf("%q lists none with %q: %s", o.list, o.words, out)
}

// sameObject compares two lines but for the handle that nft gives anew.
func sameObject(a, b string) bool {
	a, _, _ = strings.Cut(a, "# handle")
	b, _, _ = strings.Cut(b, "# handle")
	return strings.TrimSpace(a) == strings.TrimSpace(b)
}

// ruleDel: `ip rule show` prints "100: from all lookup 9027 proto 114".
func ruleDel(command string) func(string) string {
	return func(line string) string {
		_, rule, _ := strings.Cut(line, ":")
		return command + " del prio 100 " + strings.TrimSpace(rule)
	}
}

// neighDel: "172.16.2.103 lladdr aa:0f:... PERMANENT".
func neighDel(line string) string { return "ip neigh del " + strings.Fields(line)[0] + " dev raven0" }

// fdbDel: "aa:0f:... dst 172.16.2.103 self permanent".
func fdbDel(line string) string {
	f := strings.Fields(line)
	return fmt.Sprintf("bridge fdb del %s dev raven0 dst %s self", f[0], f[2])
}

// addrDel: "6: raven0    inet 172.16.2.104/32 scope global noprefixroute raven0\ ...".
func addrDel(dev string) func(string) string {
	return func(line string) string { return "ip address del " + strings.Fields(line)[3] + " dev " + dev }
}

// nftRuleDel: "iifname "raven0" goto from_overlay4 # handle 7".
func nftRuleDel(line string) string {
	_, handle, _ := strings.Cut(line, "# handle ")
	return "nft delete rule inet raven prerouting handle " + handle
}
