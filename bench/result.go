package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Result is what a run measured, with all raw samples. docs/design/bench.md describes its JSON form.
type Result struct {
	// Driver of the tunnel between the gateways: plain or wireguard.
	Driver  string   `json:"driver"`
	Kernel  string   `json:"kernel"`
	CPUs    int      `json:"cpus"`
	Rounds  int      `json:"rounds"`
	Samples []Sample `json:"samples"`
	// Ratios of each variant over the baseline: the median of the rounds' ratios.
	Ratios map[string]Ratios `json:"ratios"`
}

// Ratios of a variant over the baseline. For RTT and CPU less is better, for TCP and UDP more is.
type Ratios struct {
	RTT50    float64 `json:"rtt_p50"`
	RTT99    float64 `json:"rtt_p99"`
	TCP      float64 `json:"tcp"`
	CPUPerGB float64 `json:"tcp_cpu_per_gb"`
	UDP64    float64 `json:"udp64"`
}

// Options of a run.
type Options struct {
	Driver string
	// Only names the one variant to run, for profiling; empty: all.
	Only string
	// Rounds is how many times the variants take turns; Each is how long every single measurement lasts, at least a
	// second.
	Rounds int
	Each   time.Duration
	// Progress receives a line per sample.
	Progress io.Writer
}

// Run builds the labs, measures all variants in turn, round after round, and takes the labs down. It must be called
// inside lab.Enclose.
func Run(ctx context.Context, o Options) (r Result, err error) {
	variants := slices.DeleteFunc(Variants(o.Driver), func(v Variant) bool { return o.Only != "" && v.Name != o.Only })
	beds, err := startBeds(ctx, variants)
	defer func() { err = errors.Join(err, closeBeds(beds)) }()
	if err != nil {
		return Result{}, fmt.Errorf("build the labs: %w", err)
	}
	r = Result{Driver: o.Driver, Rounds: o.Rounds}
	r.Kernel, r.CPUs = machine()
	for round := range o.Rounds {
		for _, b := range beds {
			s, err := b.sample(ctx, round, o.Each)
			if err != nil {
				return r, fmt.Errorf("measure %s: %w", b.variant.Name, err)
			}
			r.Samples = append(r.Samples, s)
			fmt.Fprintf(o.Progress, "round %d of %d, %-8s  RTT %6.1f us  TCP %5.2f Gb/s  64-byte UDP %5.1f kpps  CPU %4.2f s/GB\n",
				round+1, o.Rounds, s.Variant, s.RTT50, s.TCP/1e9, s.UDP64/1e3, s.CPUPerGB)
		}
	}
	r.Ratios = ratios(r.Samples)
	return r, nil
}

// ratios are taken within a round, where the machine was the same, and the median over the rounds.
func ratios(samples []Sample) map[string]Ratios {
	baseline := map[int]Sample{}
	for _, s := range samples {
		if s.Variant == Baseline {
			baseline[s.Round] = s
		}
	}
	each := map[string][]Ratios{}
	for _, s := range samples {
		b, ok := baseline[s.Round]
		if !ok || s.Variant == Baseline {
			continue
		}
		each[s.Variant] = append(each[s.Variant], Ratios{
			RTT50: s.RTT50 / b.RTT50, RTT99: s.RTT99 / b.RTT99, TCP: s.TCP / b.TCP, CPUPerGB: s.CPUPerGB / b.CPUPerGB,
			UDP64: s.UDP64 / b.UDP64,
		})
	}
	out := map[string]Ratios{}
	for v, rs := range each {
		out[v] = Ratios{
			RTT50: medianOf(rs, func(r Ratios) float64 { return r.RTT50 }), RTT99: medianOf(rs, func(r Ratios) float64 { return r.RTT99 }),
			TCP: medianOf(rs, func(r Ratios) float64 { return r.TCP }), CPUPerGB: medianOf(rs, func(r Ratios) float64 { return r.CPUPerGB }),
			UDP64: medianOf(rs, func(r Ratios) float64 { return r.UDP64 }),
		}
	}
	return out
}

// medianOf is the median of a figure; of an even number of them the mean of the two in the middle. It is 0 for none.
func medianOf[T any](all []T, figure func(T) float64) float64 {
	if len(all) == 0 {
		return 0
	}
	values := make([]float64, len(all))
	for i, v := range all {
		values[i] = figure(v)
	}
	slices.SortFunc(values, cmp.Compare)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

// Table writes medians per variant and the ratios for people.
func (r Result) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s tunnel\tRTT p50 us\tp99\tTCP Gb/s\t64-byte UDP kpps\tCPU s/GB\tratios: RTT\tTCP\tUDP\tCPU\t\n", r.Driver)
	for _, v := range Variants(r.Driver) {
		var own []Sample
		for _, s := range r.Samples {
			if s.Variant == v.Name {
				own = append(own, s)
			}
		}
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.2f\t%.1f\t%.2f\t", v.Name, medianOf(own, func(s Sample) float64 { return s.RTT50 }),
			medianOf(own, func(s Sample) float64 { return s.RTT99 }), medianOf(own, func(s Sample) float64 { return s.TCP })/1e9,
			medianOf(own, func(s Sample) float64 { return s.UDP64 })/1e3, medianOf(own, func(s Sample) float64 { return s.CPUPerGB }))
		if x, ok := r.Ratios[v.Name]; ok {
			fmt.Fprintf(t, "%.2f\t%.2f\t%.2f\t%.2f\t\n", x.RTT50, x.TCP, x.UDP64, x.CPUPerGB)
		} else {
			fmt.Fprint(t, "\t\t\t\t\n")
		}
	}
	return t.Flush()
}
