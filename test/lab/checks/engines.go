package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/lab"
)

// PolicyEngines: stand-ins for three kinds of policy engines, each by the rules that such an engine leaves on a host, give the same
// verdicts with acceleration on and off, since the same table is expected of both. A pod may begin TCP to the other region and be
// asked by UDP from there, and nothing else.
var PolicyEngines = Check{
	Name: "policy-engines",
	Says: "rules as Calico's, by ipset, and first packets judged by NFQUEUE (stand-ins) let pass what they allow, and nothing else",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		for _, e := range engines { // each with its rules for both families, as they have them at work
			g, ctx := errgroup.WithContext(ctx)
			for _, family := range []int{4, 6} {
				g.Go(func() error {
					if err := underEngine(ctx, l, family, e); err != nil {
						return fmt.Errorf("%s, IPv%d: %w", e.name, family, err)
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("%d engines, 6 kinds of new flows each, over IPv4 and IPv6", len(engines)), nil
	},
}

// engine is a stand-in: what it puts on the pod's host to hold pod to its policy towards far.
type engine struct {
	name    string
	install func(ctx context.Context, pod, far end, family int) (undo func() error, err error)
}

var engines = []engine{
	{"as Calico", asCalico},
	{"by ipset", byIPSet},
	{"by NFQUEUE", byQueue},
}

func underEngine(ctx context.Context, l *lab.Lab, family int, e engine) (err error) {
	pod, err := findEnd(l, "hangzhou-2/b")
	if err != nil {
		return err
	}
	far, err := findEnd(l, "qingdao-2/a")
	if err != nil {
		return err
	}
	other, err := findEnd(l, "hangzhou-2/a")
	if err != nil {
		return err
	}
	// A connection from before goes on.
	old, err := pod.host.Dial(ctx, "tcp", netip.Addr{}, netip.AddrPortFrom(far.addr(family), lab.EchoPort))
	if err != nil {
		return err
	}
	defer old.Close()
	if _, _, err := lab.Exchange(ctx, old, "before"); err != nil {
		return err
	}
	undo, err := e.install(ctx, pod, far, family)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	if _, _, err := lab.Exchange(ctx, old, "after"); err != nil {
		return fmt.Errorf("an established connection ended: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, flow := range []struct {
		from, to end
		network  string
		allowed  bool
	}{
		{pod, far, "tcp", true}, {pod, far, "udp", false}, {pod, far, "icmp", false},
		{far, pod, "tcp", false}, {far, pod, "udp", true}, {far, pod, "icmp", false},
		{other, far, "udp", true}, {far, other, "tcp", true},
	} {
		g.Go(func() error { return judged(ctx, flow.from, flow.to, family, flow.network, flow.allowed) })
	}
	return g.Wait()
}

// dropsLast is how long a flow must get no answer to count as dropped, which is what engines do.
const dropsLast = 700 * time.Millisecond

// judged begins a flow that must be answered, or dropped.
func judged(ctx context.Context, a, b end, family int, network string, allowed bool) error {
	wait := dropsLast
	if allowed {
		wait = 5 * time.Second
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	began := time.Now()
	var err error
	if network == "icmp" {
		_, err = a.host.Ping(limited, b.addr(family), 1)
	} else {
		_, err = a.host.Ask(limited, network, b.addr(family))
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case allowed && err != nil:
		return fmt.Errorf("%s from %s to %s is allowed and fails: %w", network, a, b, err)
	case !allowed && err == nil:
		return fmt.Errorf("%s from %s to %s is not allowed and passes", network, a, b)
	case !allowed && time.Since(began) < dropsLast/2:
		return fmt.Errorf("%s from %s to %s is to be dropped, and ended at once: %w", network, a, b, err)
	}
	return nil
}

// script runs a shell line on the pod's host with $T for the family's iptables, and gives a function that runs another.
func script(ctx context.Context, h *lab.Host, family int, install, remove string) (undo func() error, err error) {
	tool := "iptables -w"
	if family == 6 {
		tool = "ip6tables -w"
	}
	run := func(ctx context.Context, line string) error {
		_, err := h.Run(ctx, "sh", "-ec", strings.ReplaceAll(line, "$T", tool))
		return err
	}
	undo = func() error { return run(context.WithoutCancel(ctx), remove) }
	if err := run(ctx, install); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// asCalico leaves chains like Felix's: a dispatch by the workload's device at the head of FORWARD, conntrack's word for what is
// established, a mark for what a policy allows, and a drop at the end.
func asCalico(ctx context.Context, pod, _ end, family int) (func() error, error) {
	host := pod.host.Node()
	out, err := host.Run(ctx, "ip", "-o", "route", "get", pod.addr(family).String())
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(out, " dev ")
	device, _, _ := strings.Cut(rest, " ")
	workload := func(chain, network string) string {
		return fmt.Sprintf(`
			$T -N %[1]s
			$T -A %[1]s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
			$T -A %[1]s -m conntrack --ctstate INVALID -j DROP
			$T -A %[1]s -j MARK --set-xmark 0x0/0x10000
			$T -A %[1]s -p %[2]s --dport %[3]d -j MARK --set-xmark 0x10000/0x10000
			$T -A %[1]s -m mark --mark 0x10000/0x10000 -j ACCEPT
			$T -A %[1]s -j DROP`, chain, network, lab.EchoPort)
	}
	return script(ctx, host, family, workload("cali-fw-b", "tcp")+workload("cali-tw-b", "udp")+fmt.Sprintf(`
			$T -N cali-FORWARD
			$T -A cali-FORWARD -i %[1]s -j cali-fw-b
			$T -A cali-FORWARD -o %[1]s -j cali-tw-b
			$T -I FORWARD -j cali-FORWARD`, device), `
			$T -D FORWARD -j cali-FORWARD
			for chain in cali-FORWARD cali-fw-b cali-tw-b; do $T -F $chain; $T -X $chain; done`)
}

// byIPSet leaves sets of who may be spoken to and who may speak, and drops new flows of others, as engines do that keep sets of
// the pods that a policy selects.
func byIPSet(ctx context.Context, pod, far end, family int) (func() error, error) {
	host, kind := pod.host.Node(), map[int]string{4: "inet", 6: "inet6"}[family]
	sets := []string{fmt.Sprintf("out-b%d", family), fmt.Sprintf("in-b%d", family)}
	unruled, err := script(ctx, host, family, fmt.Sprintf(`
			ipset create %[1]s hash:ip,port family %[6]s
			ipset create %[2]s hash:ip,port family %[6]s
			ipset add %[1]s %[3]s,tcp:%[5]d
			ipset add %[2]s %[3]s,udp:%[5]d
			$T -I FORWARD -s %[4]s -m conntrack --ctstate NEW -m set ! --match-set %[1]s dst,dst -j DROP
			$T -I FORWARD -d %[4]s -m conntrack --ctstate NEW -m set ! --match-set %[2]s src,dst -j DROP`,
		sets[0], sets[1], far.addr(family), pod.addr(family), lab.EchoPort, kind), fmt.Sprintf(`
			$T -D FORWARD -s %[1]s -m conntrack --ctstate NEW -m set ! --match-set %[2]s dst,dst -j DROP
			$T -D FORWARD -d %[1]s -m conntrack --ctstate NEW -m set ! --match-set %[3]s src,dst -j DROP`,
		pod.addr(family), sets[0], sets[1]))
	if err != nil {
		return nil, err
	}
	return func() error {
		err := unruled()
		for _, set := range sets {
			// The kernel lets go of a set some time after the last rule that names it is gone.
			soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			err = errors.Join(err, lab.Await(soon, "set "+set+" to be destroyed", func(ctx context.Context) error {
				_, err := host.Run(ctx, "ipset", "destroy", set)
				return err
			}))
			cancel()
		}
		return err
	}, nil
}

// byQueue hands the first packets of the pod's flows to a program, as engines do that decide in user space.
func byQueue(ctx context.Context, pod, _ end, family int) (func() error, error) {
	queue := uint16(70 + family)
	stop, err := pod.host.Node().JudgePackets(ctx, queue, func(packet []byte) bool {
		source, protocol, port := headers(packet)
		wanted := byte(unix.IPPROTO_UDP)
		if source == pod.addr(family) {
			wanted = unix.IPPROTO_TCP
		}
		return protocol == wanted && port == lab.EchoPort
	})
	if err != nil {
		return nil, err
	}
	rules := ""
	for _, match := range []string{"-s", "-d"} {
		rules += fmt.Sprintf("\n$T -%%s FORWARD %s %s -m conntrack --ctstate NEW -j NFQUEUE --queue-num %d", match, pod.addr(family), queue)
	}
	undo, err := script(ctx, pod.host.Node(), family, strings.ReplaceAll(rules, "%s", "I"), strings.ReplaceAll(rules, "%s", "D"))
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return func() error { return errors.Join(undo(), stop()) }, nil
}

// headers reads an IP packet without options or extension headers; the port is the destination's.
func headers(packet []byte) (source netip.Addr, protocol byte, port uint16) {
	const four, six = 20, 40
	begin := 0
	switch {
	case len(packet) >= four+4 && packet[0]>>4 == 4:
		source, protocol, begin = netip.AddrFrom4([4]byte(packet[12:16])), packet[9], four
	case len(packet) >= six+4 && packet[0]>>4 == 6:
		source, protocol, begin = netip.AddrFrom16([16]byte(packet[8:24])), packet[6], six
	default:
		return source, 0, 0
	}
	return source, protocol, uint16(packet[begin+2])<<8 | uint16(packet[begin+3])
}
