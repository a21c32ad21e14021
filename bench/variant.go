package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ravencni/raven/test/lab"
)

// Variant is one way to forward, in a lab of its own that idles while the others are measured.
type Variant struct {
	Name    string
	Options lab.AgentOptions
}

// Baseline is what the others are compared with: the kernel's own tables, VXLAN inside the region.
const Baseline = "baseline"

// Variants of the datapath over a tunnel driver, the baseline first.
func Variants(driver string) []Variant {
	return []Variant{
		{Baseline, lab.AgentOptions{Driver: driver, Acceleration: "off", Forwarding: "overlay"}},
		{"overlay", lab.AgentOptions{Driver: driver, Acceleration: "auto", Forwarding: "overlay"}},
		{"direct", lab.AgentOptions{Driver: driver, Acceleration: "auto", Forwarding: "direct"}},
	}
}

// The ends of every measurement: pods on nodes that are not gateways, in two regions whose gateways have public
// addresses. A packet crosses four nodes, wired straight to one another.
const (
	client = "west-2/a"
	server = "east-2/a"
)

// bed is a variant's running lab.
type bed struct {
	variant Variant
	lab     *lab.Lab
	to      netip.Addr
}

// startBeds builds the labs of all variants. The caller closes them, also after an error.
func startBeds(ctx context.Context, variants []Variant) ([]*bed, error) {
	var beds []*bed
	for _, v := range variants {
		l, err := lab.Start(ctx, "bench-"+v.Options.Driver+"-"+v.Name, lab.StraightPair())
		if err != nil {
			return beds, err
		}
		b := &bed{variant: v, lab: l}
		beds = append(beds, b)
		if err := l.StartAgents(ctx, v.Options); err != nil {
			return beds, err
		}
		for _, r := range l.Spec.Regions {
			for _, n := range r.Nodes {
				if n.Name+"/a" == server {
					b.to = n.Pods[0].IP4
				}
			}
		}
		if !b.to.IsValid() {
			return beds, fmt.Errorf("lab %s has no pod %s", l.Name, server)
		}
	}
	return beds, nil
}

func closeBeds(beds []*bed) error {
	var err error
	for _, b := range beds {
		err = errors.Join(err, b.lab.Close())
	}
	return err
}
