// raven-bench measures the accelerated datapath against the kernel baseline in labs of network namespaces.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/bench"
	"github.com/ravencni/raven/test/lab"
)

func main() { os.Exit(run()) }

func run() int {
	lab.BecomeHolderIfAsked()
	var o bench.Options
	var out string
	cmd := &cobra.Command{
		Use:   "raven-bench",
		Short: "Measure the accelerated datapath against the kernel baseline, alternating in one run",
		Example: `  # Five rounds over a tunnel without encryption, raw samples kept:
  raven-bench --driver=plain --out=bench/results/plain.json

  # A quick look at WireGuard:
  raven-bench --driver=wireguard --rounds=2 --each=1s`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return measure(cmd.Context(), o, out) },
	}
	f := cmd.Flags()
	f.StringVar(&o.Driver, "driver", "plain", "tunnel between the gateways: plain or wireguard")
	f.StringVar(&o.Only, "only", "", "measure this variant alone, for profiling: baseline, overlay or direct (default: all)")
	f.IntVar(&o.Rounds, "rounds", 5, "how many times the variants take turns")
	f.DurationVar(&o.Each, "each", 3*time.Second, "length of every single measurement")
	f.StringVar(&out, "out", "", "file for the result with all raw samples, as JSON (default: none)")
	o.Progress = os.Stderr
	status := 0
	execute := func() int {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
		defer stop()
		if err := cmd.ExecuteContext(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "raven-bench:", err)
			status = 1
		}
		return status
	}
	// Help and bad flags need no namespaces.
	if err := cmd.ParseFlags(os.Args[1:]); err != nil || f.Changed("help") {
		return execute()
	}
	return lab.Enclose("bench", execute)
}

func measure(ctx context.Context, o bench.Options, out string) error {
	if o.Rounds < 1 {
		return fmt.Errorf("--rounds is %d: take at least one", o.Rounds)
	}
	if o.Driver != "plain" && o.Driver != "wireguard" {
		return fmt.Errorf("--driver is %q: plain and wireguard can be measured", o.Driver)
	}
	switch o.Only {
	case "", "baseline", "overlay", "direct":
	default:
		return fmt.Errorf("--only is %q: there are baseline, overlay and direct", o.Only)
	}
	r, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := r.Table(os.Stdout); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	if out == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("make the folder of --out: %w", err)
	}
	if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write --out: %w", err)
	}
	return nil
}
