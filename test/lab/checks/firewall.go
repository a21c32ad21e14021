package checks

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/ravencni/raven/test/lab"
)

// hostFirewall is what the administrator of a node set up by iptables, long before Raven came.
type hostFirewall struct {
	node string
	// backend of iptables: nft or legacy.
	backend string
	// forwardDrop: the policy of FORWARD is DROP, as container runtimes set it.
	forwardDrop bool
	// inputEstablished: INPUT lets in only established traffic and what admits says.
	inputEstablished bool
	// admits are rules of INPUT, IPv4 only.
	admits []string
}

// hostFirewalls of the tutorial's nodes: both backends at edge gateways and members, and both at once at the relay,
// which admits the tunnel's port, as an exposed gateway's firewall must.
var hostFirewalls = []hostFirewall{
	{node: "hangzhou-1", backend: "nft", forwardDrop: true, inputEstablished: true},
	{node: "qingdao-1", backend: "legacy", forwardDrop: true, inputEstablished: true},
	{node: "hangzhou-2", backend: "nft", inputEstablished: true},
	{node: "qingdao-2", backend: "legacy", inputEstablished: true},
	{
		node: "cloud-1", backend: "nft", forwardDrop: true, inputEstablished: true,
		admits: []string{"-A INPUT -p udp --dport 4500 -j ACCEPT"},
	},
	{node: "cloud-1", backend: "legacy", forwardDrop: true},
}

// command is the iptables program of a family, such as ip6tables-legacy.
func (f hostFirewall) command(family int) string {
	if family == 6 {
		return "ip6tables-" + f.backend
	}
	return "iptables-" + f.backend
}

func (f hostFirewall) rules(family int) string {
	lines := []string{"*filter"}
	if f.forwardDrop {
		lines = append(lines, ":FORWARD DROP [0:0]")
	}
	if f.inputEstablished {
		lines = append(lines, ":INPUT DROP [0:0]", "-A INPUT -i lo -j ACCEPT",
			"-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
		if family == 6 { // what the link itself needs: neighbour discovery, RFC 4890
			for kind := 133; kind <= 136; kind++ {
				lines = append(lines, fmt.Sprintf("-A INPUT -p ipv6-icmp --icmpv6-type %d -j ACCEPT", kind))
			}
		} else {
			lines = append(lines, f.admits...)
		}
	}
	return strings.Join(append(lines, "COMMIT\n"), "\n")
}

// RaiseHostFirewalls makes the nodes of the tutorial refuse what most hardened hosts refuse. It is called before the
// agents start: iptables-legacy tells nobody of later changes, so those are found by the periodic pass only.
func RaiseHostFirewalls(ctx context.Context, l *lab.Lab) error {
	for _, f := range hostFirewalls {
		for _, family := range []int{4, 6} {
			_, err := l.Host(f.node).RunWith(ctx, strings.NewReader(f.rules(family)), f.command(family)+"-restore", "--noflush")
			if err != nil {
				return fmt.Errorf("set up the host firewall: %w", err)
			}
		}
	}
	return nil
}

// ForwardDrop needs RaiseHostFirewalls.
var ForwardDrop = Check{
	Name: "forward-drop",
	Says: "gateways and a relay whose FORWARD policy is DROP (iptables-nft, -legacy, both) pass transit, " +
		"and hold the policy against their own pods",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		before, err := policyDrops(ctx, l, "FORWARD")
		if err != nil {
			return "", err
		}
		reached, err := reachAll(ctx, l, [][2]string{
			{"hangzhou-2/a", "qingdao-2/a"}, {"qingdao-2/b", "hangzhou-2/b"}, // gateway, relay, gateway
			{"hangzhou-2/a", "cloud-2/a"}, {"cloud-2/a", "qingdao-2/a"}, {"qingdao-2", "cloud-2"},
		})
		if err != nil {
			return "", err
		}
		// Fragments take the stack in any case.
		for _, family := range []int{4, 6} {
			a, err := findEnd(l, "hangzhou-2/a")
			if err != nil {
				return "", err
			}
			b, err := findEnd(l, "qingdao-2/a")
			if err != nil {
				return "", err
			}
			if err := largeDatagram(ctx, a, b, family); err != nil {
				return "", fmt.Errorf("IPv%d, in fragments: %w", family, err)
			}
		}
		after, err := policyDrops(ctx, l, "FORWARD")
		if err != nil {
			return "", err
		}
		for chain, n := range after {
			if n != before[chain] {
				return "", fmt.Errorf("%s refused %d packets of transit", chain, n-before[chain])
			}
		}
		refusals, err := refuseAll(ctx, l, "FORWARD", [][2]string{
			{"hangzhou-1/a", "qingdao-2/a"}, {"qingdao-2/a", "hangzhou-1/a"}, {"qingdao-1/a", "cloud-2/a"},
		})
		return fmt.Sprintf("%d conversations passed; the policy refused what pods of gateways began or were asked (%s)",
			reached, refusals), err
	},
}

// InputEstablished needs RaiseHostFirewalls.
var InputEstablished = Check{
	Name: "input-established",
	Says: "edge gateways and members whose INPUT drops all but established traffic work, and stay as closed as they were",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		reached, err := reachAll(ctx, l, [][2]string{
			{"hangzhou-2", "cloud-2"}, {"qingdao-2", "cloud-2/a"}, {"hangzhou-1", "qingdao-2/a"},
			{"qingdao-1", "cloud-2"}, {"cloud-2", "hangzhou-2/a"}, {"cloud-2", "qingdao-2/b"},
		})
		if err != nil {
			return "", err
		}
		refusals, err := refuseAll(ctx, l, "INPUT", [][2]string{
			{"cloud-2", "hangzhou-2"}, {"hangzhou-2/a", "qingdao-2"}, {"cloud-2/a", "hangzhou-1"},
		})
		return fmt.Sprintf("%d conversations passed; what was begun towards the nodes themselves was refused (%s)",
			reached, refusals), err
	},
}

// refuseAll lets pairs try to converse, both families, side by side, and fails where one gets an answer. Each attempt
// must have been refused by the policy of a chain.
func refuseAll(ctx context.Context, l *lab.Lab, chain string, pairs [][2]string) (evidence string, err error) {
	before, err := policyDrops(ctx, l, chain)
	if err != nil {
		return "", err
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var ends []end
	for _, p := range pairs {
		a, err := findEnd(l, p[0])
		if err != nil {
			return "", err
		}
		b, err := findEnd(l, p[1])
		if err != nil {
			return "", err
		}
		ends = append(ends, a, b)
	}
	for i := 0; i < len(ends); i += 2 {
		for _, family := range []int{4, 6} {
			all.Go(func() {
				e := silent(ctx, ends[i], ends[i+1], family)
				mu.Lock()
				defer mu.Unlock()
				err = errors.Join(err, e)
			})
		}
	}
	all.Wait()
	after, countErr := policyDrops(ctx, l, chain)
	if err := errors.Join(err, countErr); err != nil {
		return "", err
	}
	total := 0
	for chain, n := range after {
		total += n - before[chain]
	}
	// At least a SYN, a datagram and an echo request of each.
	if least := 2 * 3 * len(pairs); total < least {
		return "", fmt.Errorf("the policies of %s counted %d packets, want at least %d", chain, total, least)
	}
	return fmt.Sprintf("%d packets", total), nil
}

var policyLine = regexp.MustCompile(`\(policy DROP (\d+) packets`)

// policyDrops is how many packets the policy DROP of a chain refused, by program and node.
func policyDrops(ctx context.Context, l *lab.Lab, chain string) (map[string]int, error) {
	counts := map[string]int{}
	for _, f := range hostFirewalls {
		if chain == "FORWARD" && !f.forwardDrop || chain == "INPUT" && !f.inputEstablished {
			continue
		}
		for _, family := range []int{4, 6} {
			out, err := l.Host(f.node).Run(ctx, f.command(family), "-w", "-nvxL", chain)
			if err != nil {
				return nil, err
			}
			m := policyLine.FindStringSubmatch(out)
			if m == nil {
				return nil, fmt.Errorf("%s on %s has no policy DROP any more: %s", chain, f.node, out)
			}
			n, err := strconv.Atoi(m[1])
			if err != nil {
				return nil, fmt.Errorf("read the counter of %s on %s: %w", chain, f.node, err)
			}
			counts[f.command(family)+" on "+f.node] = n
		}
	}
	return counts, nil
}
