package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/ravencni/raven/pkg/agent"
	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/agent/metrics"
	"github.com/ravencni/raven/pkg/agent/probe"
	"github.com/ravencni/raven/pkg/version"
)

// serveTools answers ravenctl on this node until ctx is done. An agent that cannot do so works on.
func serveTools(ctx context.Context, s *settings, p *agent.Parts, a *agent.Agent, l7 *l7, prober *probe.Prober,
	drops func(context.Context) (map[string]uint64, error), programs func(context.Context) ([]metrics.ProgramCounter, error),
	log *slog.Logger,
) {
	sources := local.Sources{
		Settings: local.Settings{
			Version: version.String(), Node: s.nodeName, StateDir: s.stateDir, Started: time.Now(),
			Acceleration: s.acceleration, LoosePodSource: s.loosePodSource,
		},
		View:        a.FreshView,
		Attachments: p.Accel.Attachments,
		Counters: func(ctx context.Context) ([]local.Counter, error) {
			return countersOf(ctx, drops, programs)
		},
		Appliers: func() (out []local.Applier) {
			for _, sum := range p.Metrics.Applied() {
				out = append(out, local.Applier(sum))
			}
			return out
		},
	}
	sources.Quality = func(peers []local.Peer) {
		known := prober.Quality()
		for i := range peers {
			if q, ok := known[peers[i].Node]; ok {
				peers[i].Loss = new(q.Loss)
				if q.RTT >= 0 {
					peers[i].RTT = new(q.RTT)
				}
			}
		}
	}
	if l7 != nil {
		sources.Refused = func() (out []local.Refused) {
			for _, r := range l7.proxy.Metrics().Refusals() {
				out = append(out, local.Refused{Front: r.Front, Reason: string(r.Reason), Count: r.Count, Last: r.Last})
			}
			return out
		}
	}
	if f, ok := p.Filter.(interface{ Warnings() []string }); ok {
		sources.Warnings = f.Warnings
	}
	if err := local.Serve(ctx, local.SocketPath(s.stateDir), sources); err != nil {
		log.Warn("ravenctl cannot ask this agent", "error", err)
	}
}

// countersOf lists what counted anything, sorted.
func countersOf(ctx context.Context, drops func(context.Context) (map[string]uint64, error),
	programs func(context.Context) ([]metrics.ProgramCounter, error),
) ([]local.Counter, error) {
	var out []local.Counter
	counters, err := programs(ctx)
	for _, c := range counters {
		if c.Packets > 0 {
			out = append(out, local.Counter{Where: c.Program, Verdict: c.Verdict, Reason: c.Reason, Packets: c.Packets, Bytes: c.Bytes})
		}
	}
	filtered, filterErr := drops(ctx)
	for reason, n := range filtered {
		if n > 0 {
			out = append(out, local.Counter{Where: "nft", Verdict: "drop", Reason: reason, Packets: n})
		}
	}
	slices.SortFunc(out, func(a, b local.Counter) int {
		return cmp.Or(cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Where, b.Where))
	})
	if err == nil {
		err = filterErr
	}
	return out, err
}
