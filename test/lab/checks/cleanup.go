package checks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// CleanedUp runs raven-agent --cleanup on every node, agents stopped, and compares their kernels with what they were
// before the agents' first start.
func CleanedUp(before map[string]lab.Kernel) Check {
	return Check{
		Name: "cleanup",
		Says: "raven-agent --cleanup removes everything that Raven made, restores every sysctl, and nothing else changes",
		Run: func(ctx context.Context, l *lab.Lab) (string, error) {
			looked := 0
			for _, node := range l.Nodes() {
				if err := l.Agent(node).Stop(); err != nil {
					return "", err
				}
				if _, err := l.Cleanup(ctx, node); err != nil {
					return "", err
				}
				after, err := l.Host(node).Kernel(ctx)
				if err != nil {
					return "", err
				}
				if diff := before[node].Diff(after); diff != "" {
					return "", fmt.Errorf("%s is not as it was:\n%s", node, diff)
				}
				looked += len(after)
			}
			return fmt.Sprintf("%d listings and sysctls on %d nodes as before the first start", looked, len(l.Nodes())), nil
		},
	}
}

// Kernels looks at the kernels of all nodes.
func Kernels(ctx context.Context, l *lab.Lab) (map[string]lab.Kernel, error) {
	all := map[string]lab.Kernel{}
	for _, node := range l.Nodes() {
		k, err := l.Host(node).Kernel(ctx)
		if err != nil {
			return nil, err
		}
		all[node] = k
	}
	return all, nil
}

// OutOfRegion: a node that leaves its region, or a cluster whose L3 is switched off, has nothing of Raven in its
// kernel; afterwards everything is back.
func OutOfRegion(before map[string]lab.Kernel) Check {
	return Check{
		Name: "off",
		Says: "an agent in no region, or with L3 disabled, owns nothing in the kernel",
		Run: func(ctx context.Context, l *lab.Lab) (string, error) {
			const node = "hangzhou-2"
			manifest, err := l.ReadManifest("node-" + node + ".yaml")
			if err != nil {
				return "", err
			}
			without := strings.ReplaceAll(manifest, "raven.openyurt.io/gateway: gw-hangzhou", "other: label")
			if without == manifest {
				return "", errors.New("the manifest has no label to remove")
			}
			if err := l.WriteManifest("node-"+node+".yaml", without); err != nil {
				return "", err
			}
			err = awaitKernel(ctx, l, before, node)
			err = errors.Join(err, l.WriteManifest("node-"+node+".yaml", manifest), l.AwaitReady(ctx, node), roundTrip(ctx, l))
			if err != nil {
				return "", fmt.Errorf("without its label: %w", err)
			}
			if err := l.WriteManifest("raven-cfg.yaml", l3Off); err != nil {
				return "", err
			}
			err = awaitKernel(ctx, l, before, l.Nodes()...)
			err = errors.Join(err, l.WriteManifest("raven-cfg.yaml", strings.ReplaceAll(l3Off, "false", "true")))
			if err == nil {
				err = errors.Join(l.AwaitReady(ctx, l.Nodes()...), roundTrip(ctx, l))
			}
			if err != nil {
				return "", fmt.Errorf("with enable-l3-tunnel off: %w", err)
			}
			return "kernels as before the first start, and traffic again afterwards", l.RemoveManifest("raven-cfg.yaml")
		},
	}
}

const l3Off = `apiVersion: v1
kind: ConfigMap
metadata:
  name: raven-cfg
  namespace: kube-system
data:
  enable-l3-tunnel: "false"
`

func awaitKernel(ctx context.Context, l *lab.Lab, want map[string]lab.Kernel, nodes ...string) error {
	for _, node := range nodes {
		err := lab.Await(ctx, "nothing of Raven in the kernel of "+node, func(ctx context.Context) error {
			k, err := l.Host(node).Kernel(ctx)
			if err != nil {
				return err
			}
			if diff := want[node].Diff(k); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// roundTrip waits until the tutorial's two conversations work again.
func roundTrip(ctx context.Context, l *lab.Lab) error {
	for _, p := range [][2]string{{"hangzhou-2/a", "qingdao-2/a"}, {"hangzhou-2", "qingdao-2"}} {
		for _, family := range []int{4, 6} {
			err := lab.Await(ctx, p[0]+" to reach "+p[1], func(ctx context.Context) error {
				_, err := reach(ctx, l, p[0], p[1], family)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
