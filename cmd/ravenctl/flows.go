package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/ctl/flows"
	"github.com/ravencni/raven/pkg/program"
)

// flowsAsked is what the command line says about the flows to show.
type flowsAsked struct {
	addresses    []netip.Addr
	within, look time.Duration
	limit        int
}

func (c *command) flowsCommand() *cobra.Command {
	var asked flowsAsked
	cmd := &cobra.Command{
		Use:   "flows [ADDRESS...]",
		Short: "Show which flows of this node's pods are accelerated, and why others are not",
		Long: "flows reads what the BPF programs have decided about each direction of a flow, the last time that they asked conntrack: at most\n" +
			"every two seconds while its packets come. No agent is needed. With --watch it repeats until it is interrupted.",
		Example: "  ravenctl flows\n  ravenctl flows 10.244.19.3 --watch=1s\n  ravenctl flows --within=0s --limit=0 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				a, err := netip.ParseAddr(arg)
				if err != nil {
					return program.Usage("%q is no address: write it like 10.244.1.5; see %s --help", arg, cmd.CommandPath())
				}
				asked.addresses = append(asked.addresses, a.Unmap())
			}
			if asked.within < 0 || asked.look < 0 || asked.limit < 0 {
				return program.Usage("--within, --watch and --limit must not be negative; see %s --help", cmd.CommandPath())
			}
			return c.showFlows(cmd.Context(), asked)
		},
	}
	cmd.Flags().DurationVar(&asked.within, "within", 10*time.Second, "only flows with packets in this time; 0s: all that are remembered")
	cmd.Flags().DurationVarP(&asked.look, "watch", "w", 0, "repeat at this interval")
	cmd.Flags().IntVar(&asked.limit, "limit", 50, "print at most so many for people; 0: all")
	return cmd
}

func (c *command) showFlows(ctx context.Context, asked flowsAsked) error {
	for {
		all, err := flows.Read(ctx, asked.within, asked.addresses...)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w (as root, in the node's mount namespace?)", err)
		}
		err = c.print(all, func(w io.Writer) error {
			if len(all) == 0 {
				_, err := fmt.Fprintln(w, "no flow: either no packets came, or nothing is accelerated here (ravenctl status says)")
				return err
			}
			return flows.Write(w, all, asked.limit)
		})
		if err != nil || asked.look == 0 {
			return err
		}
		timer := time.NewTimer(asked.look)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case at := <-timer.C:
			if c.output != "json" {
				if _, err := fmt.Fprintf(c.out, "%s\n", at.Format(time.TimeOnly)); err != nil {
					return err
				}
			}
		}
	}
}
