package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/bench"
	"github.com/ravencni/raven/bench/l7"
	"github.com/ravencni/raven/pkg/version"
)

const measureName = "measure"

// plan is what a run measures.
type plan struct {
	tunnels, paths, metrics []string
	rules, rulesEncrypted   []int
	rounds                  int
	each                    time.Duration
	quick, proxy, planner   bool
	out                     string
}

func measureCommand() *cobra.Command {
	var p plan
	cmd := &cobra.Command{
		Use: measureName, Short: "Measure, and write latest.json with all raw samples", Args: cobra.NoArgs,
		Example: `  # All of it, into bench/results:
  raven-bench measure --out=bench/results

  # The accelerated path alone over WireGuard, for a profiler:
  raven-bench measure --tunnel=wireguard --path=overlay --metric=tcp_bits_per_second --rounds=1 --each=60s --proxy=false --planner=false`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.measure(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&p.tunnels, "tunnel", bench.Tunnels, "kinds of tunnel between the gateways")
	f.StringSliceVar(&p.paths, "path", nil, "paths to measure (default: all)")
	f.StringSliceVar(&p.metrics, "metric", nil, "metrics to measure, by their keys in the result (default: all)")
	f.IntSliceVar(&p.rules, "rules", []int{0, 1000, 10000}, "numbers of kube-proxy's rules beside the original's path, over a plain tunnel")
	f.IntSliceVar(&p.rulesEncrypted, "rules-encrypted", []int{0, 10000}, "the same over tunnels that encrypt")
	f.IntVar(&p.rounds, "rounds", 3, "how many times the paths take turns")
	f.DurationVar(&p.each, "each", time.Second, "length of every single measurement, at least a second")
	f.BoolVar(&p.quick, "quick", false, "say in the result that this was a short run")
	f.BoolVar(&p.proxy, "proxy", true, "measure the L7 proxy")
	f.BoolVar(&p.planner, "planner", true, "measure the planner")
	f.StringVar(&p.out, "out", "", "folder for "+bench.LatestFile+", where results of other measurements are taken from (default: none is written)")
	return cmd
}

func (p plan) check() error {
	for _, t := range p.tunnels {
		if !slices.Contains(bench.Tunnels, t) {
			return fmt.Errorf("--tunnel is %q: there are %s", t, strings.Join(bench.Tunnels, ", "))
		}
	}
	for _, m := range p.metrics {
		if !slices.ContainsFunc(bench.Metrics, func(known bench.Metric) bool { return known.Key == m }) {
			return fmt.Errorf("--metric is %q: see the keys in docs/design/bench.md", m)
		}
	}
	if p.rounds < 1 {
		return fmt.Errorf("--rounds is %d: take at least one", p.rounds)
	}
	return nil
}

func (p plan) measure(ctx context.Context) error {
	if err := p.check(); err != nil {
		return err
	}
	begin := time.Now()
	r := bench.Result{Schema: bench.Schema, Measured: begin.UTC().Truncate(time.Second), Version: version.String(), Quick: p.quick,
		Tunnels: map[string]bench.TunnelResult{}}
	r.Kernel, r.CPUs = bench.Machine()
	if p.planner {
		planner, err := bench.MeasurePlanner(1000, 5)
		if err != nil {
			return err
		}
		r.Planner = &planner
		fmt.Fprintf(os.Stderr, "planner: %d nodes in %.0f ms, %d allocations\n", planner.Nodes, planner.Milliseconds, planner.Allocations)
	}
	for _, tunnel := range p.tunnels {
		o, err := p.options(tunnel)
		if err != nil {
			return err
		}
		samples, err := bench.Run(ctx, o)
		if err != nil {
			return err
		}
		r.Samples = append(r.Samples, samples...)
		r.Tunnels[tunnel] = bench.Summarize(samples, o)
	}
	if p.proxy {
		o := l7.Options{Rounds: p.rounds, Each: p.each, Idle: 1000, Progress: os.Stderr}
		samples, err := l7.Run(ctx, o)
		if err != nil {
			return err
		}
		r.Samples = append(r.Samples, bench.ProxySamples(samples)...)
		r.Proxy = bench.SummarizeProxy(r.Samples, o)
	}
	r.Seconds = time.Since(begin).Round(time.Second).Seconds()
	if p.out != "" {
		if err := r.Merge(p.out); err != nil {
			return err
		}
	}
	if err := r.Conclude(); err != nil {
		return err
	}
	fmt.Println(r.Markdown())
	if p.out == "" {
		return nil
	}
	return r.Write(filepath.Join(p.out, bench.LatestFile))
}

func (p plan) options(tunnel string) (bench.Options, error) {
	rules := p.rules
	if tunnel != "plain" {
		rules = p.rulesEncrypted
	}
	paths, err := bench.Select(bench.Paths(rules...), p.paths)
	if err != nil {
		return bench.Options{}, err
	}
	o := bench.Options{Tunnel: tunnel, Paths: paths, Rounds: p.rounds, Each: p.each, Progress: os.Stderr}
	if len(p.metrics) > 0 {
		o.Metrics = map[string]bool{}
		for _, m := range p.metrics {
			o.Metrics[m] = true
		}
	}
	return o, nil
}
