package checks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf/link"

	"github.com/ravencni/raven/test/lab"
)

// The pod whose veth others use, and whom it talks to.
const (
	foreignPod  = "hangzhou-2/b"
	foreignPeer = "qingdao-2/a"
)

// linesEach are exchanged per connection; each makes a packet either way at least.
const linesEach = 50

// veth is the pod's veth on its node.
type veth struct {
	pod, peer end
	node      *lab.Host
	dev       string
}

// ForeignUse: others' programs, shapers and devices at a pod's veth keep seeing every packet.
var ForeignUse = Check{
	Name: "foreign-use",
	Says: "a pod whose veth has a foreign clsact filter, tcx program, shaper or device on top is left to the kernel, visibly, " +
		"the stranger sees every packet, and acceleration comes back",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		pod, err := findEnd(l, foreignPod)
		if err != nil {
			return "", err
		}
		peer, err := findEnd(l, foreignPeer)
		if err != nil {
			return "", err
		}
		v := &veth{pod: pod, peer: peer, node: pod.host.Node(), dev: lab.HostVeth(*pod.pod)}
		var evidence []string
		for _, use := range foreignUses {
			e, err := v.try(ctx, l, use)
			if errors.Is(err, link.ErrNotSupported) { // tcx before Linux 6.6
				e, err = "this kernel has none", nil
			}
			if err != nil {
				return "", fmt.Errorf("%s: %w", use.name, err)
			}
			evidence = append(evidence, use.name+": "+e)
		}
		return strings.Join(evidence, "; "), nil
	},
}

func (v *veth) try(ctx context.Context, l *lab.Lab, use foreignUse) (evidence string, err error) {
	if err := v.awaitAccelerated(ctx, l); err != nil {
		return "", err
	}
	// A connection from before goes on, and its packets too must be seen.
	var old []net.Conn
	for _, family := range []int{4, 6} {
		c, err := warm(ctx, l, foreignPod, foreignPeer, family)
		if err != nil {
			return "", err
		}
		defer c.Close()
		old = append(old, c)
	}
	remove, counted, err := use.add(ctx, v)
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, remove())
		if err == nil {
			err = v.awaitAccelerated(ctx, l)
		}
	}()
	if err := v.awaitLeft(ctx, l, use.reason); err != nil {
		return "", err
	}
	truth, err := v.pod.host.Tap("eth0")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, truth.Close()) }()
	before, err := counted()
	if err != nil {
		return "", err
	}
	if err := v.talk(ctx, old); err != nil {
		return "", err
	}
	return allSeen(ctx, use, truth, before, counted)
}

// allSeen waits until the stranger has counted what the pod sent and received.
func allSeen(ctx context.Context, use foreignUse, truth *lab.Tap, before lab.TapCount, counted counter) (
	evidence string, err error,
) {
	err = lab.Await(ctx, "the stranger to count what the pod counts", func(context.Context) error {
		pod, err := truth.Count()
		if err != nil {
			return err
		}
		now, err := counted()
		if err != nil {
			return err
		}
		seen := now.Sub(before)
		evidence = fmt.Sprintf("%d of %d packets to the pod", min(seen.Out, pod.In), pod.In)
		if !use.outOnly {
			evidence += fmt.Sprintf(", %d of %d from it", seen.In, pod.Out)
		}
		// Two old connections and two for each of the protocols, both ways.
		const least = (2 + 2*2) * linesEach
		switch {
		case pod.In < least || pod.Out < least:
			return lab.Final(fmt.Errorf("the pod itself counted only %+v, want %d each way", pod, least))
		case use.outOnly && seen.Out >= pod.In, !use.outOnly && seen.Out == pod.In && seen.In == pod.Out:
			return nil
		}
		return fmt.Errorf("the stranger saw %+v, the pod %+v", seen, pod)
	})
	return evidence, err
}

// talk exchanges lines over old connections and new ones, begun by either side, by TCP and UDP over both families.
func (v *veth) talk(ctx context.Context, old []net.Conn) error {
	exchange := func(c net.Conn) error {
		for range linesEach {
			if _, _, err := lab.Exchange(ctx, c, "hello"); err != nil {
				return err
			}
		}
		return nil
	}
	for _, c := range old {
		if err := exchange(c); err != nil {
			return fmt.Errorf("over the old connection: %w", err)
		}
	}
	for _, family := range []int{4, 6} {
		for network, ends := range map[string][2]end{"tcp": {v.peer, v.pod}, "udp": {v.pod, v.peer}} {
			c, err := ends[0].host.Dial(ctx, network, netip.Addr{}, netip.AddrPortFrom(ends[1].addr(family), lab.EchoPort))
			if err != nil {
				return err
			}
			if err := errors.Join(exchange(c), c.Close()); err != nil {
				return fmt.Errorf("%s, IPv%d: %w", network, family, err)
			}
		}
	}
	return nil
}

// awaitLeft waits until the program is off the veth, and device and reason can be read everywhere.
func (v *veth) awaitLeft(ctx context.Context, l *lab.Lab, reason string) error {
	return lab.Await(ctx, "pod "+foreignPod+" to be left to the kernel", func(ctx context.Context) error {
		programs, err := attached(ctx, v.node, v.dev)
		if err != nil {
			return err
		}
		if slices.Contains(programs, "raven_from_pod") {
			return fmt.Errorf("%s still runs %v", v.dev, programs)
		}
		m, err := l.Metrics(ctx, v.node.Name)
		if err != nil {
			return err
		}
		if m.Sum("raven_problem", "object", "Device/"+v.dev, "reason", "NotAccelerated") != 1 ||
			m.Sum("raven_local_pods", "accelerated", "false") != 1 {
			return errors.New("no metric names it")
		}
		status, err := l.ReadManifest("tunnelendpoint-" + v.node.Name + ".yaml")
		if err != nil {
			return err
		}
		for where, text := range map[string]string{
			"published status": strings.Join(strings.Fields(status), " "), "log": l.Agent(v.node.Name).LogTail(20),
		} {
			// The log quotes what the message quotes.
			if text = strings.ReplaceAll(text, `\`, ""); !strings.Contains(text, v.dev) || !strings.Contains(text, reason) {
				return fmt.Errorf("the %s does not name %s and %q", where, v.dev, reason)
			}
		}
		return nil
	})
}

// awaitAccelerated waits until the program is on the veth and a new flow is redirected by it.
func (v *veth) awaitAccelerated(ctx context.Context, l *lab.Lab) error {
	redirects := func(ctx context.Context) (float64, error) {
		m, err := l.Metrics(ctx, v.node.Name)
		return m.Sum("raven_packets_total", "program", "raven_from_pod", "verdict", "redirect"), err
	}
	return lab.Await(ctx, "pod "+foreignPod+" to be accelerated", func(ctx context.Context) error {
		programs, err := attached(ctx, v.node, v.dev)
		if err != nil {
			return err
		}
		m, err := l.Metrics(ctx, v.node.Name)
		if err != nil {
			return err
		}
		if !slices.Contains(programs, "raven_from_pod") || m.Sum("raven_problem", "object", "Device/"+v.dev) != 0 {
			return fmt.Errorf("%s runs %v", v.dev, programs)
		}
		before, err := redirects(ctx)
		if err != nil {
			return err
		}
		c, err := warm(ctx, l, foreignPod, foreignPeer, 4)
		if err != nil {
			return err
		}
		after, err := redirects(ctx)
		if err == nil && after-before < 10 {
			err = fmt.Errorf("%g of a flow's packets were redirected", after-before)
		}
		return errors.Join(err, c.Close())
	})
}
