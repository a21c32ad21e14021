package checks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// foreignUse is a way in which others use a pod's veth.
type foreignUse struct {
	name string
	// reason must be in what Raven says.
	reason string
	add    adder
	// outOnly: the use sees only what goes to the pod, and counts others than the Echo's packets too.
	outOnly bool
}

// adder begins a use of a veth; remove ends it, counted is how many of the Echo's packets passed it so far.
type adder func(context.Context, *veth) (remove func() error, counted counter, err error)

// counter says how many packets passed since it was made.
type counter func() (lab.TapCount, error)

var foreignUses = []foreignUse{
	{name: "clsact filters", reason: `bpf filter "stranger"`, add: tap((*lab.Host).Tap)},
	{name: "tcx programs", reason: `tcx ingress program "stranger"`, add: tap((*lab.Host).TapTCX)},
	{name: "a tbf shaper", reason: "qdisc tbf", outOnly: true, add: shaper("root tbf rate 20mbit burst 32k latency 50ms")},
	{name: "an htb shaper", reason: "qdisc htb", outOnly: true, add: shaper("root handle 1: htb default 1")},
	{name: "a device on top", reason: "does not lead to", add: addUpper},
}

// tap attaches counting programs to the veth.
func tap(attach func(*lab.Host, string) (*lab.Tap, error)) adder {
	return func(_ context.Context, v *veth) (func() error, counter, error) {
		t, err := attach(v.node, v.dev)
		if err != nil {
			return nil, nil, err
		}
		return t.Close, t.Count, nil
	}
}

// shaper adds a qdisc to the veth.
func shaper(qdisc string) adder {
	return func(ctx context.Context, v *veth) (func() error, counter, error) {
		tc := func(ctx context.Context, command string) (string, error) {
			return v.node.Run(ctx, "tc", strings.Fields(command)...)
		}
		if _, err := tc(ctx, "qdisc add dev "+v.dev+" "+qdisc); err != nil {
			return nil, nil, err
		}
		remove := func() error {
			_, err := tc(context.WithoutCancel(ctx), "qdisc del dev "+v.dev+" root")
			return err
		}
		return remove, func() (lab.TapCount, error) {
			out, err := tc(ctx, "-s -j qdisc show dev "+v.dev+" root")
			if err != nil {
				return lab.TapCount{}, err
			}
			var qdiscs []struct{ Packets uint64 }
			if err := json.Unmarshal([]byte(out), &qdiscs); err != nil || len(qdiscs) != 1 {
				return lab.TapCount{}, fmt.Errorf("read what tc says of %s: %w: %s", v.dev, err, out)
			}
			return lab.TapCount{Out: qdiscs[0].Packets}, nil
		}, nil
	}
}

// addUpper puts a device on top of the veth that takes all of its packets, and the pod's routes onto that device. It
// stands for a port of Open vSwitch, which takes packets in the same place (the device's rx_handler): a macvlan in mode
// passthru is what every kernel at hand has. What a master that is no Linux bridge means is tried in package pods.
func addUpper(ctx context.Context, v *veth) (remove func() error, counted counter, err error) {
	const upper = "ovs0"
	node := v.pod.node
	run := func(ctx context.Context, commands ...string) (err error) {
		for _, c := range commands {
			_, e := v.node.Run(ctx, "ip", strings.Fields(c)...)
			err = errors.Join(err, e)
		}
		return err
	}
	move := func(ctx context.Context, dev string) error {
		return run(ctx, fmt.Sprintf("addr replace %s.1/32 dev %s", strings.TrimSuffix(node.Pods4.Addr().String(), ".0"), dev),
			fmt.Sprintf("addr replace %s1/128 dev %s nodad", node.Pods6.Addr(), dev),
			fmt.Sprintf("route replace %s/32 dev %s", v.pod.pod.IP4, dev),
			fmt.Sprintf("-6 route del %s/128", v.pod.pod.IP6), fmt.Sprintf("-6 route add %s/128 dev %s", v.pod.pod.IP6, dev))
	}
	err = run(ctx, "link add link "+v.dev+" name "+upper+" type macvlan mode passthru", "link set "+upper+" up")
	if err == nil {
		err = move(ctx, upper)
	}
	if err != nil {
		return nil, nil, err
	}
	t, err := v.node.Tap(upper)
	if err != nil {
		return nil, nil, err
	}
	return func() error {
		ctx := context.WithoutCancel(ctx)
		return errors.Join(t.Close(), move(ctx, v.dev), run(ctx, "link del "+upper))
	}, t.Count, nil
}
