package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/ravencni/raven/pkg/agent/concern"
	"github.com/ravencni/raven/pkg/agent/health"
	"github.com/ravencni/raven/pkg/agent/metrics"
	"github.com/ravencni/raven/pkg/agent/report"
	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

const (
	// resync is how often everything is compared with the kernel without a reason, and how often the tunnels' health
	// is read.
	resync = 30 * time.Second
	// retry is the same while the last pass did not do all it should, or a tunnel is not up.
	retry = 5 * time.Second
	// coalesce is how long the loop waits after a notice for those that come with it.
	coalesce = 10 * time.Millisecond
	// scrapeAge is how old the tunnels' figures of a scrape may be: whoever may scrape must not keep the loop busy.
	scrapeAge = time.Second
	// burst passes may follow one another at once, and then passesPerSecond: a repair is quick, and a fight with
	// somebody who keeps deleting what is ours stays cheap.
	burst           = 10
	passesPerSecond = 2
)

// Agent is the daemon of one node.
type Agent struct {
	Parts
	heart    *health.Heart
	problems *report.Problems
	latest   atomic.Pointer[view.View]
	// statusAsked takes requests of scrapes for fresh tunnel figures.
	statusAsked chan chan struct{}
	scraped     atomic.Pointer[time.Time] // when the loop served such a request last; nil: never
	notices     *notices
	snapshots   *saver

	// Owned by the loop.
	driver      tunnel.Driver
	port        topology.PortChoice
	other       *switching // nil but while the driver changes
	elected     *source.Elected
	limiter     *rate.Limiter
	plan        *topology.Plan // of the last pass
	scope       *concern.Scope // of that plan's input; nil before the first
	planned     planned        // what both were made of
	published   *v1beta1.TunnelEndpointStatus
	rotation    rotation
	keyRequest  string // to change the key, that was served last
	listed      bool   // the source lists this node's TunnelEndpoint
	underlayMTU int
	problemsNow map[string][]topology.Problem // by where they come from
	failed      map[string]string
}

// New puts an agent together; nothing is touched before Run.
func New(p Parts) *Agent {
	a := &Agent{
		Parts:       p,
		heart:       health.NewHeart(),
		problems:    report.New(p.Log),
		statusAsked: make(chan chan struct{}),
		notices:     newNotices(),
		limiter:     rate.NewLimiter(passesPerSecond, burst),
		problemsNow: map[string][]topology.Problem{},
		failed:      map[string]string{},
	}
	var known []*v1beta1.Gateway
	if p.Seed != nil {
		known = p.Seed.State.Gateways
	}
	a.elected = source.NewElected(known, time.Now())
	if p.Snapshot != nil {
		a.snapshots = newSaver(p.Snapshot, p.Log)
	}
	a.latest.Store(&view.View{Waiting: "the agent is starting", FromSnapshot: p.Seed != nil})
	return a
}

// Heart is the loop's pulse, for /healthz.
func (a *Agent) Heart() *health.Heart { return a.heart }

// View is what the agent knew after its last pass.
func (a *Agent) View() *view.View { return a.latest.Load() }

// FreshView is View with the tunnels' figures of this second, or with older ones where the loop is busy until ctx is
// done.
func (a *Agent) FreshView(ctx context.Context) *view.View {
	if a.scrapedLately() {
		return a.View()
	}
	done := make(chan struct{})
	select {
	case a.statusAsked <- done:
		select {
		case <-done:
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	return a.View()
}

// scrapedLately says whether the tunnels' figures are fresh enough for a scrape.
func (a *Agent) scrapedLately() bool {
	last := a.scraped.Load()
	return last != nil && time.Since(*last) < scrapeAge
}

// serveScrape reads the tunnels' figures, unless that was done while the request waited.
func (a *Agent) serveScrape(ctx context.Context) {
	if a.scrapedLately() {
		return
	}
	a.readPeers(ctx)
	now := time.Now()
	a.scraped.Store(&now)
}

// SnapshotAge is in seconds; negative without a snapshot.
func (a *Agent) SnapshotAge() float64 {
	if a.snapshots == nil {
		return -1
	}
	return a.snapshots.age(time.Now())
}

// Observe adds to m what can be read of the agent at scrape time.
func (a *Agent) Observe(m *metrics.Metrics, s metrics.Sources) {
	s.View, s.SnapshotAge = a.FreshView, a.SnapshotAge
	m.Observe(s)
}

// Run acts until ctx is done, and leaves everything in the kernel as it is. It returns an error where the agent could
// not do anything at all.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	var sourceErr error
	defer group.Wait()
	defer stop()

	group.Go(func() {
		if err := a.Source.Run(ctx); err != nil {
			sourceErr = fmt.Errorf("the source ended: %w", err)
			stop()
		}
	})
	for _, w := range a.Watchers {
		group.Go(func() { a.watch(ctx, w) })
	}
	if a.Publisher != nil {
		group.Go(func() { a.Publisher.Run(ctx) })
	}
	if a.snapshots != nil {
		group.Go(func() { a.snapshots.run(ctx) })
	}
	err := a.loop(ctx)
	a.rotation.end()
	stop()
	group.Wait()
	return errors.Join(err, sourceErr)
}

// watch keeps one watcher running.
func (a *Agent) watch(ctx context.Context, w Watcher) {
	const pause = time.Second
	for {
		err := w.Run(ctx, a.notices.give)
		if ctx.Err() != nil {
			return
		}
		a.Log.Warn("notices of the kernel were interrupted; starting to watch again", "watcher", w.Name, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		a.notices.give(Notice{What: w.Name + " watch restarted"}) // what happened meanwhile was not seen
	}
}
