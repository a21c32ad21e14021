package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/tunnel/wireguard"
	"github.com/ravencni/raven/pkg/version"
)

// tunnelsCommand is the process of raven-tunnel-ds: it holds what must outlive every update of the agent.
func tunnelsCommand() *cobra.Command {
	opts := wireguard.HoldOptions{}
	cmd := &cobra.Command{
		Use:   "tunnels",
		Short: "Hold userspace tunnels on behalf of an agent that runs with --external-tunnel-process",
		Long: "Serves the userspace WireGuard device for as long as an agent with the same --state-dir asks for it; it idles\n" +
			"on members and where the kernel has WireGuard. Ending it takes the device away.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			log.Info("raven-agent holds tunnels", "version", version.String(), "state", opts.StateDir)
			opts.Logger = log
			return wireguard.Hold(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringVar(&opts.StateDir, "state-dir", datapath.StateDir, "the agent's folder for keys and requests")
	return cmd
}

// idleCommand keeps a pod whose work is done ready, in an image that has no shell.
func idleCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "idle",
		Short:  "Wait until told to end",
		Hidden: true,
		Args:   noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			<-cmd.Context().Done()
			return nil
		},
	}
}
