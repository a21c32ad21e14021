package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"
)

// Tunnels are the kinds that can be measured: two that encrypt in user space, and one that does not.
var Tunnels = []string{"plain", "wireguard", "ipsec"}

// Options of a run over one kind of tunnel.
type Options struct {
	Tunnel string
	Paths  []Path
	// Rounds is how many times the paths take turns; Each is how long every single measurement lasts, at least a second.
	Rounds int
	Each   time.Duration
	// Within is how long the run may take: no round but the first begins that would end later, if it took as long as the one
	// before. 0: as long as it takes.
	Within time.Duration
	// Metrics to measure, by key; nil: all.
	Metrics map[string]bool
	// Progress receives a line per measurement.
	Progress io.Writer
}

// probe is one way to measure, which yields one or more metrics.
type probe struct {
	keys []string
	run  func(*bed, context.Context, time.Duration) (map[string]float64, error)
}

var probes = []probe{
	{[]string{RTT50, RTT99}, (*bed).roundTrips},
	{[]string{TCP, CPUPerGB}, (*bed).oneStream},
	{[]string{UDP64, CPUPerMpkt}, (*bed).smallDatagrams},
	{[]string{TCP8}, (*bed).eightStreams},
	{[]string{UDPFull}, (*bed).fullDatagrams},
	{[]string{Connections}, (*bed).connections},
}

func (p probe) wanted(metrics map[string]bool) bool {
	for _, k := range p.keys {
		if metrics == nil || metrics[k] {
			return true
		}
	}
	return false
}

// Run builds the labs of all paths, measures one metric of all of them in turn and then the next, round after round, and
// takes the labs down. It must be called inside lab.Enclose. What cannot be measured, nor on a second try, is absent from
// the samples and named in failures: an hour's figures are not thrown away for one.
func Run(ctx context.Context, o Options) (samples []Sample, failures []string, err error) {
	begin := time.Now()
	beds, err := startBeds(ctx, o.Tunnel, o.Paths)
	defer func() { err = errors.Join(err, closeBeds(beds)) }()
	if err != nil {
		return nil, nil, fmt.Errorf("build the labs: %w", err)
	}
	fmt.Fprintf(o.Progress, "%s: %d paths are ready after %.0f s\n", o.Tunnel, len(beds), time.Since(begin).Seconds())
	var took time.Duration
	for round := range o.Rounds {
		if round > 0 && o.Within > 0 && time.Since(begin)+took > o.Within {
			fmt.Fprintf(o.Progress, "%s: no time for more than %d rounds\n", o.Tunnel, round)
			break
		}
		roundBegin := time.Now()
		of := make([]Sample, len(beds))
		for i, b := range beds {
			of[i] = Sample{Tunnel: o.Tunnel, Path: b.path.Name, Round: round, Values: map[string]float64{}}
		}
		for _, p := range probes {
			if !p.wanted(o.Metrics) {
				continue
			}
			// Another path begins in each round, so that none is always the one after a certain other.
			for i := range beds {
				at := (i + round) % len(beds)
				where := fmt.Sprintf("%s, round %d of %d, %s:", o.Tunnel, round+1, o.Rounds, beds[at].path.Name)
				values, err := p.twice(ctx, beds[at], o.Each)
				if ctx.Err() != nil {
					return samples, failures, ctx.Err()
				}
				if err != nil {
					failures = append(failures, fmt.Sprintf("%s %v", where, err))
					fmt.Fprintf(o.Progress, "%s NOT MEASURED: %v\n", where, err)
					continue
				}
				fmt.Fprintf(o.Progress, "%s%s\n", where, inWords(values))
				maps.Copy(of[at].Values, values)
			}
		}
		samples = append(samples, of...)
		took = time.Since(roundBegin)
	}
	fmt.Fprintf(o.Progress, "%s: measured in %.0f s\n", o.Tunnel, time.Since(begin).Seconds())
	return samples, failures, nil
}

// overtime is how much longer than its measurement a probe may take.
const overtime = 30 * time.Second

// twice measures, and where that fails once more.
func (p probe) twice(ctx context.Context, b *bed, each time.Duration) (values map[string]float64, err error) {
	for range 2 {
		limited, cancel := context.WithTimeout(ctx, each+overtime)
		values, err = p.run(b, limited, each)
		cancel()
		if err == nil || ctx.Err() != nil {
			return values, err
		}
	}
	return nil, err
}

// inWords lists figures for the progress.
func inWords(values map[string]float64) string {
	out := ""
	for _, m := range Metrics {
		if v, ok := values[m.Key]; ok {
			out += fmt.Sprintf("  %s %s", m.Title, m.format(v))
		}
	}
	return out
}

// format writes a value for people.
func (m Metric) format(v float64) string { return fmt.Sprintf("%.*f", m.Digits, v/m.Scale) }
