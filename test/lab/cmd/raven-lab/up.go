package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/test/lab"
)

func upCommand() *cobra.Command {
	var options lab.AgentOptions
	var bare, pair bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build the tutorial's cluster with agents on all nodes and leave it up",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return enclosed(true, func(ctx context.Context, name string) error {
				ctx, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				spec := lab.Tutorial()
				if pair {
					spec = lab.Pair()
				}
				l, err := lab.Start(ctx, name, spec)
				if err != nil {
					return err
				}
				fmt.Printf("built %d hosts\n", len(l.Hosts()))
				if bare {
					return nil
				}
				return l.StartAgents(ctx, options)
			})
		},
	}
	cmd.Flags().BoolVar(&bare, "bare", false, "start no agents")
	cmd.Flags().BoolVar(&pair, "pair", false, "two regions with public gateways instead of the tutorial's three")
	cmd.Flags().StringVar(&options.Acceleration, "acceleration", "auto", "auto or off")
	cmd.Flags().StringVar(&options.Driver, "vpn-driver", "wireguard", "wireguard or plain")
	cmd.Flags().StringVar(&options.Forwarding, "in-region-forwarding", "overlay", "overlay or direct")
	return cmd
}
