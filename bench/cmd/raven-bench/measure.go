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
	each, within            time.Duration
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
	f.IntSliceVar(&p.rulesEncrypted, "rules-encrypted", []int{0}, "the same over tunnels that encrypt")
	f.IntVar(&p.rounds, "rounds", 3, "how many times the paths take turns")
	f.DurationVar(&p.each, "each", time.Second, "length of every single measurement, at least a second")
	f.DurationVar(&p.within, "within", 0, "how long the run may take: fewer rounds where that is short (default: no limit)")
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
	for _, t := range p.tunnels {
		if _, err := p.options(t); err != nil {
			return err
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
	parts := p.parts()
	left := 0
	for _, part := range parts {
		left += part.weight
	}
	for _, part := range parts {
		var within time.Duration
		if p.within > 0 {
			// What others left of their time is the later ones'.
			within = max(time.Second, (p.within-time.Since(begin))*time.Duration(part.weight)/time.Duration(left))
		}
		left -= part.weight
		// The other parts' figures are worth having without this one.
		if err := part.measure(ctx, &r, within); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "NOT MEASURED:", err)
			r.Failures = append(r.Failures, err.Error())
		}
		r.Seconds = time.Since(begin).Round(time.Second).Seconds()
		if err := p.keep(&r); err != nil {
			return err
		}
	}
	fmt.Println(r.Markdown())
	if len(r.Failures) > 0 {
		fmt.Fprintf(os.Stderr, "%d things could not be measured; the result names them\n", len(r.Failures))
	}
	return nil
}

// part of a run; weight is its share of the time.
type part struct {
	weight  int
	measure func(ctx context.Context, r *bench.Result, within time.Duration) error
}

// proxyWeight is that of the L7 proxy; a tunnel has as many as paths.
const proxyWeight = 4

func (p plan) parts() []part {
	var parts []part
	if p.planner {
		parts = append(parts, part{1, measurePlanner})
	}
	for _, tunnel := range p.tunnels {
		o, _ := p.options(tunnel) // checked before
		parts = append(parts, part{len(o.Paths), func(ctx context.Context, r *bench.Result, within time.Duration) error {
			o.Within = within
			return measureTunnel(ctx, r, o)
		}})
	}
	if p.proxy {
		parts = append(parts, part{proxyWeight, p.measureProxy})
	}
	return parts
}

// keep writes what is known so far.
func (p plan) keep(r *bench.Result) error {
	if p.out != "" {
		if err := r.Merge(p.out); err != nil {
			return err
		}
	}
	if err := r.Conclude(); err != nil || p.out == "" {
		return err
	}
	return r.Write(filepath.Join(p.out, bench.LatestFile))
}

func measurePlanner(_ context.Context, r *bench.Result, _ time.Duration) error {
	planner, err := bench.MeasurePlanner(1000, 5)
	if err != nil {
		return err
	}
	r.Planner = &planner
	fmt.Fprintf(os.Stderr, "planner: %d nodes in %.0f ms, %d allocations\n", planner.Nodes, planner.Milliseconds, planner.Allocations)
	return nil
}

func measureTunnel(ctx context.Context, r *bench.Result, o bench.Options) error {
	samples, failures, err := bench.Run(ctx, o)
	r.Samples, r.Failures = append(r.Samples, samples...), append(r.Failures, failures...)
	if len(samples) > 0 {
		r.Tunnels[o.Tunnel] = bench.Summarize(samples, o)
	}
	return err
}

func (p plan) measureProxy(ctx context.Context, r *bench.Result, within time.Duration) error {
	o := l7.Options{Rounds: p.rounds, Each: p.each, Within: within, Idle: 1000, Progress: os.Stderr}
	samples, err := l7.Run(ctx, o)
	r.Samples = append(r.Samples, bench.ProxySamples(samples)...)
	if len(samples) > 0 {
		r.Proxy = bench.SummarizeProxy(r.Samples, o)
	}
	return err
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
