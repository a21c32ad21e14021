package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// Names in the lab's topology: two regions of a gateway and a member, whose gateways have public addresses. A packet
// from member to member crosses four nodes, wired straight to one another.
const (
	clientGateway, clientNode = "west-1", "west-2"
	serverGateway, serverNode = "east-1", "east-2"
	podOf                     = "/a"
)

// bed is a path's running lab, and between whom it is measured.
type bed struct {
	path           Path
	lab            *lab.Lab
	client, server *lab.Host
	to             netip.Addr
}

// startBeds builds the labs of all paths over a tunnel; paths that differ only in their ends share one. The caller closes
// them, also after an error.
func startBeds(ctx context.Context, tunnel string, paths []Path) ([]*bed, error) {
	var beds []*bed
	for _, p := range paths {
		b := &bed{path: p}
		for _, other := range beds {
			if other.path.sameLab(p) {
				b.lab = other.lab
			}
		}
		if b.lab == nil {
			l, err := lab.Start(ctx, "bench-"+tunnel+"-"+p.Name, lab.StraightPair())
			if err != nil {
				return beds, err
			}
			b.lab = l
			beds = append(beds, b)
			if err := b.prepare(ctx, tunnel); err != nil {
				return beds, fmt.Errorf("prepare %s over %s: %w", p.Name, tunnel, err)
			}
		} else {
			beds = append(beds, b)
		}
		if err := b.findEnds(ctx); err != nil {
			return beds, err
		}
		if err := b.carries(ctx); err != nil {
			return beds, fmt.Errorf("%s over %s: %w", p.Name, tunnel, err)
		}
	}
	return beds, nil
}

// prepare makes the lab's nodes forward as the path does.
func (b *bed) prepare(ctx context.Context, tunnel string) error {
	p := b.path
	var err error
	if p.Forwarding != "" {
		err = b.lab.StartAgents(ctx, p.agents(tunnel))
	} else {
		err = leaveTunnel(ctx, b.lab, p.agents(tunnel))
	}
	if err == nil && p.Original {
		err = buildOriginal(ctx, b.lab)
	}
	if err == nil && p.Name != Bare {
		err = addKubeProxy(ctx, b.lab, p.Rules)
	}
	return err
}

func (b *bed) findEnds(ctx context.Context) error {
	b.client, b.server, b.to = b.lab.Host(clientNode+podOf), b.lab.Host(serverNode+podOf), nodeOf(b.lab, serverNode).Pods[0].IP4
	if !b.path.Gateways {
		for _, pod := range []*lab.Host{b.client, b.server} {
			if err := setCongestion(ctx, pod); err != nil {
				return err
			}
		}
	} else {
		b.client, b.server, b.to = b.lab.Host(clientGateway), b.lab.Host(serverGateway), nodeOf(b.lab, serverGateway).IP4
	}
	// So many short connections need many ports.
	return b.client.Sysctl("net/ipv4/ip_local_port_range", "10240 65535")
}

// carries makes sure of the path, so that no figure is another path's: packets arrive, and where it is the original's they
// do so by its device on both members.
func (b *bed) carries(ctx context.Context) error {
	const pings = 3
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := lab.Await(ctx, "an answer", func(ctx context.Context) error {
		_, err := b.client.Run(ctx, "ping", "-c", fmt.Sprint(pings), "-i", "0.01", "-W", "5", b.to.String())
		return err
	})
	if err != nil || !b.path.Original {
		return err
	}
	for _, node := range []string{clientNode, serverNode} {
		link, err := b.lab.Host(node).Link(originalDev)
		if err != nil {
			return err
		}
		if n := link.Attrs().Statistics; n == nil || n.RxPackets < pings || n.TxPackets < pings {
			return fmt.Errorf("%d pings were answered, but did not all pass by %s of %s, which counts %+v", pings, originalDev, node, n)
		}
	}
	return nil
}

// nodeOf finds a node of the topology, which has it.
func nodeOf(l *lab.Lab, name string) *lab.Node {
	for i := range l.Spec.Regions {
		for j := range l.Spec.Regions[i].Nodes {
			if n := &l.Spec.Regions[i].Nodes[j]; n.Name == name {
				return n
			}
		}
	}
	panic("the benchmark's topology has no node " + name)
}

func closeBeds(beds []*bed) error {
	closed := map[*lab.Lab]bool{}
	var err error
	for _, b := range beds {
		if !closed[b.lab] {
			closed[b.lab] = true
			err = errors.Join(err, b.lab.Close())
		}
	}
	return err
}
