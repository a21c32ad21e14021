package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/test/lab"
)

// cluster is what up and hold build.
type cluster struct {
	options    lab.AgentOptions
	bare, pair bool
}

func (c *cluster) flags(cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	f.BoolVar(&c.bare, "bare", false, "start no agents")
	f.BoolVar(&c.pair, "pair", false, "two regions with public gateways instead of the tutorial's three")
	f.StringVar(&c.options.Acceleration, "acceleration", "auto", "auto or off")
	f.StringVar(&c.options.Driver, "vpn-driver", "wireguard", "wireguard, ipsec or plain")
	f.StringVar(&c.options.Forwarding, "in-region-forwarding", "overlay", "overlay or direct")
	f.StringArrayVar(&c.options.Extra, "agent-flag", nil, "one more flag for every agent")
	return cmd
}

func (c *cluster) start(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	spec := lab.Tutorial()
	if c.pair {
		spec = lab.Pair()
	}
	l, err := lab.Start(ctx, name, spec)
	if err != nil || c.bare {
		return err
	}
	return l.StartAgents(ctx, c.options)
}

func upCommand() *cobra.Command {
	var c cluster
	return c.flags(&cobra.Command{
		Use:   "up",
		Short: "Build the tutorial's cluster with agents on all nodes and leave it up",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return enclosed(true, c.start) },
	})
}

func holdCommand() *cobra.Command {
	var c cluster
	return c.flags(&cobra.Command{
		Use:   "hold",
		Short: "Build the same and hold it until this command is interrupted or killed",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return enclosed(false, func(ctx context.Context, name string) error {
				if err := c.start(ctx, name); err != nil {
					return err
				}
				fmt.Printf("lab %s stands; interrupt to end it\n", name)
				<-ctx.Done()
				return nil
			})
		},
	})
}
