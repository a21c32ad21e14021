package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"github.com/ravencni/raven/pkg/uninstall"
)

// cleanNodesCommand is what `make undeploy` and Helm's pre-delete hook run in the cluster.
func (c *command) cleanNodesCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "clean-nodes",
		Short: "End the agents and run raven-agent --cleanup on every node",
		Long: "Deletes the DaemonSets raven-agent-ds and raven-tunnel-ds, runs the agent's cleanup on every node that is\n" +
			"ready, and names the nodes that are not. It may be run again where it was interrupted.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := c.config()
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("make a client of the API server: %w", err)
			}
			log := slog.New(slog.NewTextHandler(c.err, nil))
			return uninstall.Run(cmd.Context(), client, uninstall.Options{Timeout: timeout, Log: log})
		},
	}
	cmd.Flags().StringVar(&c.kubeconfig, "kubeconfig", "", "file that says how to reach the API server; empty: the pod's service account")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long the nodes may take in all")
	return cmd
}
