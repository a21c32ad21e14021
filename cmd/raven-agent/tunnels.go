package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/tunnel/ipsec"
	"github.com/ravencni/raven/pkg/tunnel/wireguard"
	"github.com/ravencni/raven/pkg/version"
)

// ipsecPause is before the IPsec daemon is run again where it could not.
const ipsecPause = time.Second

// tunnelsCommand is the process of raven-tunnel-ds: it holds what must outlive every update of the agent.
func tunnelsCommand() *cobra.Command {
	var stateDir, esp string
	cmd := &cobra.Command{
		Use:   "tunnels",
		Short: "Hold tunnels on behalf of an agent that runs with --external-tunnel-process",
		Long: "Holds strongSwan's charon and the userspace WireGuard device for as long as an agent with the same --state-dir\n" +
			"asks for them; it idles on members. Ending it ends charon and takes the device of a tunnel in user space away.",
		Example: "  raven-agent tunnels\n" +
			"  raven-agent tunnels --ipsec-esp=userspace",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := ipsec.ESP(esp).Check(); err != nil {
				return fmt.Errorf("--ipsec-esp: %w", err)
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			log.Info("raven-agent holds tunnels", "version", version.String(), "state", stateDir)
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			var daemon sync.WaitGroup
			daemon.Go(func() { holdIPsec(ctx, ipsec.DaemonOptions{ESP: ipsec.ESP(esp), Logger: log}) })
			err := wireguard.Hold(ctx, wireguard.HoldOptions{StateDir: stateDir, Logger: log})
			stop()
			daemon.Wait()
			return err
		},
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", datapath.StateDir, "the agent's folder for keys and requests")
	cmd.Flags().StringVar(&esp, "ipsec-esp", string(ipsec.ESPAuto), "what encrypts IPsec: userspace (charon), kernel, or auto, the kernel where it can")
	return cmd
}

// holdIPsec runs the IPsec daemon until ctx ends; where it fails, WireGuard's device stays what it is.
func holdIPsec(ctx context.Context, o ipsec.DaemonOptions) {
	for {
		err := ipsec.RunDaemon(ctx, o)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				o.Logger.Warn("cannot clear up after IPsec", "error", err)
			}
			return
		}
		o.Logger.Error("the IPsec daemon ended and is run again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(ipsecPause):
		}
	}
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
