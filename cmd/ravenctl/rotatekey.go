package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ravencni/raven/pkg/ctl/rotatekey"
	"github.com/ravencni/raven/pkg/program"
)

func (c *command) rotateKeyCommand() *cobra.Command {
	var kubeconfig string
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "rotate-key NODE",
		Short: "Change the WireGuard key of a node",
		Long: "rotate-key asks the agent on a node for another key, and waits until it is in use. The peers are told first; then\n" +
			"the node takes the key and shakes hands with each of them at once. The node's own tunnels pause for about a second;\n" +
			"all other tunnels of its peers lose nothing. It needs the right to patch TunnelEndpoints.",
		Example: "  ravenctl rotate-key edge-1\n  ravenctl rotate-key edge-1 --kubeconfig=$HOME/.kube/config --timeout=30s -o json",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return program.Usage("name one node: %w; see %s --help", err, cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if patience <= 0 {
				return program.Usage("--timeout is %s: it must be positive, such as 30s", patience)
			}
			log.SetLogger(logr.Discard()) // the library complains where nobody says where its words go
			rules := clientcmd.NewDefaultClientConfigLoadingRules()
			rules.ExplicitPath = kubeconfig
			config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
			if err != nil {
				return fmt.Errorf("find the API server: %w; name a file with --kubeconfig", err)
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), patience, errors.New("--timeout is over"))
			defer cancel()
			change, err := rotatekey.Run(ctx, config, args[0])
			if err != nil {
				return err
			}
			return c.print(change, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "node %s uses key %s since %.1f s after the request; before: %s\n",
					change.Node, change.After, change.Seconds, change.Before)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "file that says how to reach the API server; empty: as kubectl finds it")
	cmd.Flags().DurationVar(&patience, "timeout", 2*time.Minute, "how long to wait for the node's agent")
	return cmd
}
