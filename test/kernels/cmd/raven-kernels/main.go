// Command raven-kernels boots other kernels under QEMU and runs Raven's tests there.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/kernels"
)

func main() {
	kernels.BecomeInitIfAsked()
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer cancel()
	root := &cobra.Command{
		Use:           "raven-kernels",
		Short:         "Boot other kernels under QEMU and run Raven's tests there",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(fetchCommand(), runCommand(), testCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "raven-kernels:", err)
		os.Exit(1)
	}
}

func fetchCommand() *cobra.Command {
	var update bool
	cmd := &cobra.Command{
		Use:   "fetch",
		Short: "Download the kernels into the cache and list them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, r := range kernels.Releases() {
				k, err := r.Fetch(cmd.Context(), update)
				if err != nil {
					return err
				}
				fmt.Printf("%-6s %s\n", k.Series, k.Package)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&update, "update", false, "look for newer ones")
	return cmd
}

func runCommand() *cobra.Command {
	var job kernels.Job
	var series string
	cmd := &cobra.Command{
		Use:   "run -- COMMAND...",
		Short: "Run one command as root of a guest",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, r := range kernels.Releases() {
				if r.Series != series {
					continue
				}
				k, err := r.Fetch(cmd.Context(), false)
				if err != nil {
					return err
				}
				job.Command = args
				outcome, err := k.Run(cmd.Context(), job, os.Stdout)
				if err != nil {
					return err
				}
				fmt.Printf("kernel %s: exit status %d after %s\n%s", outcome.Kernel, outcome.Status,
					outcome.Took.Round(time.Second), outcome.Report)
				if outcome.Status != 0 {
					return errors.New("the command failed")
				}
				return nil
			}
			return fmt.Errorf("there is no kernel %q: see raven-kernels fetch", series)
		},
	}
	f := cmd.Flags()
	f.StringVar(&series, "kernel", "6.1", "series of the kernel")
	f.StringArrayVar(&job.Env, "env", nil, "NAME=value for the command")
	f.StringArrayVar(&job.Modules, "module", nil, "kernel module to load first")
	f.StringVar(&job.Dir, "dir", "/", "working directory")
	f.IntVar(&job.Memory, "memory", 1024, "MiB of memory")
	f.DurationVar(&job.Limit, "limit", 5*time.Minute, "limit of the whole run, the boot included")
	return cmd
}
