package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"github.com/ravencni/raven/pkg/agent"
	"github.com/ravencni/raven/pkg/agent/health"
	"github.com/ravencni/raven/pkg/agent/lock"
	"github.com/ravencni/raven/pkg/agent/metrics"
	"github.com/ravencni/raven/pkg/agent/probe"
	"github.com/ravencni/raven/pkg/agent/publish"
	"github.com/ravencni/raven/pkg/agent/snapshot"
	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/datapath/accel"
	"github.com/ravencni/raven/pkg/datapath/filter"
	"github.com/ravencni/raven/pkg/datapath/host"
	"github.com/ravencni/raven/pkg/datapath/overlay"
	"github.com/ravencni/raven/pkg/datapath/route"
	"github.com/ravencni/raven/pkg/datapath/sysctl"
	"github.com/ravencni/raven/pkg/proxy/clusterapi"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/pkg/tunnel/ipsec"
	"github.com/ravencni/raven/pkg/tunnel/plain"
	"github.com/ravencni/raven/pkg/tunnel/wireguard"
	"github.com/ravencni/raven/pkg/version"
)

// runDaemon acts until ctx is done.
func runDaemon(ctx context.Context, s *settings, log *slog.Logger) error {
	l, err := lock.Acquire(s.stateDir)
	if err != nil {
		return err
	}
	err = daemon(ctx, s, log)
	return errors.Join(err, l.Release())
}

func daemon(ctx context.Context, s *settings, log *slog.Logger) error {
	if err := os.MkdirAll(s.stateDir, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // a small heap costs little to walk, and the node's memory is for its pods
	}
	p, drops, programs, err := kernelParts(s, log)
	if err != nil {
		return err
	}
	p.Snapshot = snapshot.Open(s.stateDir)
	seed, err := p.Snapshot.Load()
	if err != nil {
		log.Warn("starting without the last good input", "error", err)
	}
	p.Seed = seed
	clients, err := sourceParts(p, s, seed, log)
	if err != nil {
		return err
	}

	if s.cniConfDir != "" {
		installCNI(p, s, log)
	}
	p.Metrics = metrics.New(version.String())
	var l7 *l7
	if clients != nil { // without an API server nobody signs the proxy's certificate
		l7 = newL7(s, &clusterapi.Client{Core: clients.Core(), Certificates: clients.Certificates(), Node: s.nodeName}, log)
		p.Proxy = l7.set
		p.Metrics.Register(l7.proxy.Metrics())
	}
	a := agent.New(*p)
	prober := probe.New(func() map[string]netip.Addr { return a.View().PeerAddrs })
	a.Observe(p.Metrics, metrics.Sources{Programs: programs, FilterDrops: drops, Quality: prober.Quality})
	log.Info("raven-agent starts", "version", version.String(), "node", s.nodeName, "snapshot", p.Seed != nil)

	serving, stop := context.WithCancel(ctx)
	var pages sync.WaitGroup
	pages.Go(func() { agent.Serve(serving, "metrics", s.metricAddr, pageOf("/metrics", p.Metrics.Handler()), log) })
	pages.Go(func() { agent.Serve(serving, "health", s.healthAddr, health.Handler(a.Heart(), a.View), log) })
	pages.Go(func() { prober.Run(serving) })
	pages.Go(func() { serveTools(serving, s, p, a, l7, prober, drops, programs, log) })
	if l7 != nil {
		pages.Go(func() { l7.run(serving) })
	}
	err = a.Run(ctx)
	stop()
	pages.Wait()
	if err == nil {
		log.Info("raven-agent ends; everything it set up stays and carries traffic on")
	}
	return err
}

// kernelParts are appliers and drivers, and the functions that read the kernel's counters.
func kernelParts(s *settings, log *slog.Logger) (
	p *agent.Parts, drops func(context.Context) (map[string]uint64, error),
	programs func(context.Context) ([]metrics.ProgramCounter, error), err error,
) {
	mode := accel.Mode(s.acceleration)
	accelerator, err := accel.New(accel.Options{
		Mode: mode, XDP: s.xdp, HandshakesPerSecond: s.handshakesPerSecond, Logger: log,
		ForceFailure: s.forceFailure, ForceClsact: s.forceClsact,
	})
	if err != nil {
		return nil, nil, nil, err
	}
	packetFilter := filter.New(filter.Options{LoosePodSource: s.loosePodSource})
	p = &agent.Parts{
		Node: s.nodeName, NodeIP: s.address, Direct: s.forwarding == "direct",
		Overlay: overlay.New(),
		Sysctl:  sysctl.New(sysctl.Options{Acceleration: mode == accel.ModeAuto, StateDir: s.stateDir}),
		Filter:  packetFilter,
		Route:   route.New(),
		Accel:   accelerator,
		Drivers: drivers(s, log),
		Resolve: host.Resolve, UnderlayMTU: host.UnderlayMTU,
		Log: log,
	}
	kernel := &kernelWatch{devices: accelerator.Name(), routes: p.Route.Name()}
	p.Track = kernel.track
	p.Watchers = []agent.Watcher{
		{Name: "kernel", Run: kernel.run},
		{Name: "programs", Run: func(ctx context.Context, changed func(agent.Notice)) error {
			return accelerator.WatchPrograms(ctx, func() { changed(agent.Notice{What: "programs changed", Part: accelerator.Name()}) })
		}},
		{Name: "filter", Run: func(ctx context.Context, changed func(agent.Notice)) error {
			return packetFilter.Watch(ctx, func() { changed(agent.Notice{What: "packet filter changed", Part: packetFilter.Name()}) })
		}},
	}
	drops = func(ctx context.Context) (map[string]uint64, error) {
		counters, err := packetFilter.Counters(ctx)
		out := make(map[string]uint64, len(counters))
		for reason, c := range counters {
			out[reason] = c.Packets
		}
		return out, err
	}
	programs = func(ctx context.Context) ([]metrics.ProgramCounter, error) {
		counters, err := accelerator.Counters(ctx)
		out := make([]metrics.ProgramCounter, 0, len(counters))
		for _, c := range counters {
			out = append(out, metrics.ProgramCounter(c))
		}
		return out, err
	}
	return p, drops, programs, nil
}

func drivers(s *settings, log *slog.Logger) []agent.DriverChoice {
	encrypted := func() (tunnel.Driver, error) {
		return wireguard.New(wireguard.Options{
			StateDir: s.stateDir, Logger: log, External: s.externalDevice, Userspace: s.userspace,
		})
	}
	clear := func() (tunnel.Driver, error) { return plain.New(plain.Options{AllowUnencrypted: true, Logger: log}) }
	var refuse error
	if !s.allowUnencrypted {
		refuse = errPlain
	}
	return []agent.DriverChoice{
		{Name: wireguard.Name, New: encrypted},
		{Name: plain.Name, New: clear, Refuse: refuse},
		{Name: ipsec.Name, New: func() (tunnel.Driver, error) {
			return ipsec.New(ipsec.Options{
				StateDir: s.stateDir, Logger: log, External: s.externalDevice, ESP: ipsec.ESP(s.ipsecESP), Secret: ipsec.Secret(s.pskFile, s.psk),
				Certificates: ipsec.CertificateFiles(s.ipsecCA, s.ipsecCert, s.ipsecKey),
			})
		}},
	}
}

// sourceParts connect the agent to manifests or to an API server, whose clients it returns.
func sourceParts(p *agent.Parts, s *settings, seed *source.Input, log *slog.Logger) (*source.Clients, error) {
	if s.manifests != "" {
		dir, err := filepath.Abs(s.manifests)
		if err != nil {
			return nil, fmt.Errorf("find the manifests folder %s: %w", s.manifests, err)
		}
		p.Standalone = true
		p.Source = source.NewManifests(dir, s.cluster, seed, source.Elect, log)
		if s.publishDir != "" {
			p.Publisher = publish.New(publish.Dir{Folder: s.publishDir, Node: s.nodeName}, log)
		}
		return nil, nil
	}
	clients, err := source.NewClients(s.kubeconfig, version.String())
	if err != nil {
		return nil, err
	}
	p.Source = source.NewKube(clients, s.cluster, seed)
	p.Publisher = publish.NewSpread(publish.API{Client: clients.Raven(), Node: s.nodeName}, s.nodeName, log)
	return clients, nil
}

// runCleanup removes everything of Raven's and says what it was.
func runCleanup(ctx context.Context, s *settings, log *slog.Logger, out io.Writer) error {
	l, err := lock.Acquire(s.stateDir)
	if err != nil {
		return err
	}
	p, _, _, err := kernelParts(s, log)
	if err != nil {
		return errors.Join(err, l.Release())
	}
	count := 0
	say := func(line string) {
		count++
		fmt.Fprintln(out, line)
	}
	err = s.withoutCNI(ctx, say, func() error { return p.Cleanup(ctx, s.stateDir, say) })
	if s.cleanupState {
		err = errors.Join(err, agent.RemoveState(s.stateDir, say))
	}
	if err == nil && count == 0 {
		fmt.Fprintln(out, "nothing of Raven's is on this node")
	}
	return errors.Join(err, l.Release())
}

// pageOf serves h at one path and nothing elsewhere.
func pageOf(path string, h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+path, h)
	return mux
}
