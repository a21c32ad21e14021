package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/ravencni/raven/pkg/program"
	"github.com/ravencni/raven/pkg/tunnel/detached"
	"github.com/ravencni/raven/pkg/tunnel/ipsec"
	"github.com/ravencni/raven/pkg/tunnel/wireguard"
	"github.com/ravencni/raven/pkg/version"
)

const examples = `  # On a node of a cluster, with the pod's service account:
  raven-agent --vpn-driver=wireguard

  # Without an API server: read Gateways, Nodes and TunnelEndpoints from a folder, and put this node's own one there:
  raven-agent --node-name=edge-1 --manifests=/etc/raven --publish-dir=/etc/raven --vpn-driver=wireguard

  # Let the kernel's own tables forward everything:
  raven-agent --vpn-driver=wireguard --acceleration=off

  # Remove everything that Raven made on this node, after the agent was stopped:
  raven-agent --cleanup

  # Look at it:
  curl -s localhost:10275/readyz; curl -s localhost:10265/metrics | grep ^raven_`

// command is the program with its outputs.
type command struct {
	out, err io.Writer
	root     *cobra.Command
	options  options
	warnings []string
	// daemon and cleanup do the work; tests replace them.
	daemon  func(context.Context, *settings, *slog.Logger) error
	cleanup func(context.Context, *settings, *slog.Logger, io.Writer) error
}

func newCommand(out, err io.Writer) *command {
	c := &command{out: out, err: err, daemon: runDaemon, cleanup: runCleanup}
	c.root = &cobra.Command{
		Use:   "raven-agent",
		Short: "Join this node to its region, and its region to the others",
		Long: "raven-agent reads the cluster's Gateways, Nodes and TunnelEndpoints and keeps this node's routes, tunnels,\n" +
			"packet filter and eBPF programs as they have to be. Ending it removes nothing: traffic flows on.",
		Example:       examples,
		Args:          noArguments,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version.String(),
		RunE:          c.main,
	}
	c.root.SetOut(out)
	c.root.SetErr(err)
	c.root.CompletionOptions.DisableDefaultCmd = true
	c.root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return program.Usage("%w; see raven-agent --help", err)
	})
	c.options.register(c.root.Flags())
	c.root.Flags().SortFlags = false
	c.root.AddCommand(deviceCommand(), ipsecCommand(), tunnelsCommand(), idleCommand())
	return c
}

func noArguments(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return program.Usage("%w; see raven-agent --help", err)
	}
	return nil
}

func (c *command) run(ctx context.Context, args []string) error {
	args, c.warnings = dropProxyFlags(args)
	if args == nil {
		args = []string{} // cobra takes nil for os.Args
	}
	c.root.SetArgs(args)
	return c.root.ExecuteContext(ctx)
}

func (c *command) main(cmd *cobra.Command, _ []string) error {
	s, err := c.options.check(cmd.Flags(), os.Getenv)
	if err != nil {
		return program.Usage("%w", err)
	}
	log := slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: s.level}))
	// The libraries' own words about the API server repeat what the agent says, at every attempt.
	klog.SetSlogLogger(slog.New(demoted{log.Handler()}))
	slog.SetDefault(log)
	for _, w := range append(c.warnings, s.warnings...) {
		log.Warn(w)
	}
	if s.options.cleanup {
		return c.cleanup(cmd.Context(), s, log, c.out)
	}
	return c.daemon(cmd.Context(), s, log)
}

// demoted shows records at level debug only.
type demoted struct{ slog.Handler }

func (d demoted) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

// deviceCommand is the process that holds the userspace WireGuard device; the agent starts it.
func deviceCommand() *cobra.Command {
	opts := wireguard.DeviceOptions{}
	cmd := &cobra.Command{
		Use:    "wireguard-device",
		Short:  "Hold the userspace WireGuard device, until it is deleted",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := wireguard.RunDevice(cmd.Context(), opts)
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().StringVar(&opts.Name, "name", wireguard.DefaultDevice, "name of the device")
	return cmd
}

// ipsecCommand is the process that holds charon; the agent starts it.
func ipsecCommand() *cobra.Command {
	opts := ipsec.DaemonOptions{}
	cmd := &cobra.Command{
		Use:    "ipsec-daemon",
		Short:  "Hold strongSwan's charon and keep its connections, until told to end",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Logger = slog.New(slog.NewTextHandler(detached.NewLog(os.Stderr), nil))
			return ipsec.RunDaemon(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringVar(&opts.Device, "device", ipsec.DefaultDevice, "name of the tunnel device")
	cmd.Flags().StringVar(&opts.RunDir, "run-dir", ipsec.DefaultRunDir, "folder of the sockets")
	cmd.Flags().StringVar((*string)(&opts.ESP), "esp", string(ipsec.ESPAuto), "what encrypts: kernel, userspace (charon), or auto, the kernel where it can")
	return cmd
}
