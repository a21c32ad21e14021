package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/ctl/status"
)

func (c *command) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show a node's region, tunnels, traffic, appliers and problems",
		Long: "status asks the agent of this node, or of the one that --node names. Regions are the others as this node reaches them;\n" +
			"peers are the gateways that it holds a tunnel to, none on a member.",
		Example: "  ravenctl status\n  ravenctl status --node edge-1\n  ravenctl status -o json | jq .peers",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := local.Ask(cmd.Context(), local.SocketPath(c.stateDir))
			if errors.Is(err, local.ErrNoAgent) {
				return fmt.Errorf("%w; is raven-agent running here, and is --state-dir its own? "+
					"`ravenctl doctor` works without an agent", err)
			}
			if err != nil {
				return err
			}
			return c.print(r, func(w io.Writer) error { return status.Write(w, r) })
		},
	}
}
