// raven-bench measures Raven's paths against the original's in labs of network namespaces, and writes what people read of it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/bench/l7"
	"github.com/ravencni/raven/pkg/version"
	"github.com/ravencni/raven/test/lab"
)

func main() { os.Exit(run()) }

func run() int {
	lab.BecomeHolderIfAsked()
	cmd := &cobra.Command{
		Use: "raven-bench", Short: "Measure Raven in labs of network namespaces, all paths alternating in one run",
		SilenceUsage: true, SilenceErrors: true, Version: version.String(),
	}
	cmd.AddCommand(measureCommand(), reportCommand(), &cobra.Command{
		Use: l7.ProxyCommand, Short: "Run the L7 proxy of a node, for the measurement", Hidden: true, Args: cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return l7.RunProxy(cmd.Context(), args[0], args[1], args[2:])
		},
	})
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	execute := func() int {
		if err := cmd.ExecuteContext(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "raven-bench:", err)
			return 1
		}
		return 0
	}
	// What measures lives in namespaces of its own; help and reports need none.
	if len(os.Args) > 1 && os.Args[1] == measureName && !asksForHelp(os.Args) {
		return lab.Enclose("bench", execute)
	}
	return execute()
}

func asksForHelp(args []string) bool {
	for _, a := range args {
		if a == "-h" || a == "--help" {
			return true
		}
	}
	return false
}
