package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/ctl/drops"
	"github.com/ravencni/raven/pkg/program"
)

func (c *command) dropsCommand() *cobra.Command {
	var all bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Show why this node lets go of packets, by reason and place, and which they were",
		Long: "drops reads the counters of the BPF programs and of the nft table raven from the kernel; no agent is needed.\n" +
			"Below them stand the last packets that the programs dropped, a few for each reason; what the table dropped is\n" +
			"counted only. With --watch it prints what came since the look before, until it is interrupted.",
		Example: "  ravenctl drops\n  ravenctl drops --watch=1s\n  ravenctl drops --all -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 0 {
				return program.Usage("--watch is %s: it must be positive, such as 1s", every)
			}
			counts, err := drops.Read(cmd.Context())
			if err != nil {
				return fmt.Errorf("%w (as root, in the node's network and mount namespaces?)", err)
			}
			if len(counts) == 0 {
				return fmt.Errorf("nothing is counted here: neither Raven's programs nor its nft table are on this node; " +
					"is raven-agent running, and is the node in a region?")
			}
			if every > 0 {
				return c.watchDrops(cmd.Context(), counts, all, every)
			}
			packets, err := drops.Packets(cmd.Context())
			if err != nil {
				return err
			}
			return c.printDrops(drops.Seen(counts, all), packets)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also what passed to the kernel and what was redirected")
	cmd.Flags().DurationVarP(&every, "watch", "w", 0, "repeat at this interval, with what was counted in between")
	return cmd
}

func (c *command) printDrops(counts []drops.Count, packets []drops.Packet) error {
	if counts == nil {
		counts = []drops.Count{} // [] rather than null
	}
	return c.print(drops.Report{Counts: counts, Packets: packets}, func(w io.Writer) error {
		if len(counts) == 0 && len(packets) == 0 {
			_, err := fmt.Fprintln(w, "nothing was dropped")
			return err
		}
		if len(counts) > 0 {
			if err := drops.Write(w, counts); err != nil {
				return err
			}
		}
		if len(packets) == 0 {
			return nil
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		return drops.WritePackets(w, packets)
	})
}

func (c *command) watchDrops(ctx context.Context, last []drops.Count, all bool, every time.Duration) error {
	looked := time.Now()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case at := <-ticker.C:
			now, err := drops.Read(ctx)
			packets, packetsErr := drops.Packets(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err := errors.Join(err, packetsErr); err != nil {
				return err
			}
			seen, fresh := drops.Seen(drops.Since(last, now), all), drops.After(packets, looked)
			last, looked = now, at
			if c.output != "json" {
				if _, err := fmt.Fprintf(c.out, "%s\n", at.Format(time.TimeOnly)); err != nil {
					return err
				}
			}
			if err := c.printDrops(seen, fresh); err != nil {
				return err
			}
		}
	}
}
