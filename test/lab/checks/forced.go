package checks

import (
	"context"
	"fmt"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/test/lab"
)

// SaysBaseline: nodes whose kernel refuses the BPF programs say so and why, in status and metrics.
var SaysBaseline = Check{
	Name:  "says-baseline",
	Flags: []string{lab.RefuseBPF},
	Says:  "a node whose kernel refuses the BPF programs says so in status, metric and log",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		reason := ""
		for _, node := range l.Nodes() {
			err := lab.Await(ctx, node+" to say that it runs on the baseline", func(ctx context.Context) error {
				endpoint, err := publishedBy(l, node)
				if err != nil {
					return err
				}
				reason = endpoint.Status.DatapathReason
				if endpoint.Status.Datapath != v1beta1.DatapathBaseline || reason == "" {
					return fmt.Errorf("its status says %s, reason %q", endpoint.Status.Datapath, reason)
				}
				m, err := l.Metrics(ctx, node)
				if err != nil {
					return err
				}
				if m.Sum("raven_datapath_accelerated") != 0 || m.Sum("raven_datapath_mode", "mode", "Baseline") != 1 {
					return fmt.Errorf("its metrics do not say Baseline")
				}
				return nil
			})
			if err != nil {
				return "", err
			}
		}
		return "every node: " + reason, nil
	},
}
