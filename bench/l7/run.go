package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// Keys of the metrics.
const (
	RTT50      = "request_p50_us"
	RTT99      = "request_p99_us"
	Requests1  = "requests_per_second_1_stream"
	Requests2  = "requests_per_second_100_streams"
	Requests3  = "requests_per_second_1000_streams"
	Throughput = "stream_bits_per_second"
	// Memory is of both proxies together, MemoryCloud and MemoryEdge of each.
	Memory      = "idle_stream_bytes"
	MemoryCloud = "idle_stream_cloud_bytes"
	MemoryEdge  = "idle_stream_edge_bytes"
)

// Sample is one measurement of one path by one front.
type Sample struct {
	Front, Path string
	Round       int
	Values      map[string]float64
}

// Options of a run.
type Options struct {
	Rounds int
	Each   time.Duration
	// Within is how long the run may take: no round but the first begins that would end later. 0: as long as it takes.
	Within time.Duration
	// Idle is how many streams stand still where their memory is measured.
	Idle     int
	Progress io.Writer
}

// proxies are those of a path while they run: that in the cloud, then the edge's.
type proxies struct {
	processes []*lab.Process
	stop      context.CancelFunc
}

func (p proxies) end() {
	p.stop()
	for _, x := range p.processes {
		<-x.Done()
	}
}

// Run measures all paths in turn, round after round. It returns the samples that were taken with an error, too. It must be called inside lab.Enclose, by a program that has
// ProxyCommand.
func Run(ctx context.Context, o Options) (samples []Sample, err error) {
	begin := time.Now()
	w, err := start(ctx)
	if w != nil {
		defer func() { err = errors.Join(err, w.close()) }()
	}
	if err != nil {
		return nil, fmt.Errorf("build the lab of the L7 proxy: %w", err)
	}
	if samples, err = w.idleMemory(ctx, o); err != nil {
		return samples, err
	}
	for _, path := range []string{HAProxy, Raven} {
		p, err := w.begin(ctx, path)
		if err != nil {
			return samples, err
		}
		defer p.end()
	}
	var took time.Duration
	for round := range o.Rounds {
		if round > 0 && o.Within > 0 && time.Since(begin)+took > o.Within {
			fmt.Fprintf(o.Progress, "L7: no time for more than %d rounds\n", round)
			break
		}
		roundBegin := time.Now()
		of, err := w.round(ctx, round, o)
		if err != nil {
			return samples, err
		}
		samples = append(samples, of...)
		took = time.Since(roundBegin)
	}
	return samples, nil
}

// idleMemory measures what streams that stand still cost both proxies of a path, fresh ones for each front: what was freed
// before could be used again, and would not show.
func (w *world) idleMemory(ctx context.Context, o Options) (samples []Sample, err error) {
	for _, front := range []string{HTTP, TLS} {
		for _, path := range []string{HAProxy, Raven} {
			values, err := w.memoryOf(ctx, path, front, o.Idle)
			if err != nil {
				return samples, err
			}
			samples = append(samples, Sample{Front: front, Path: path, Values: values})
			fmt.Fprintf(o.Progress, "L7, %s by %s: %.1f KiB per idle stream\n", front, path, values[Memory]/1024)
		}
	}
	return samples, nil
}

func (w *world) memoryOf(ctx context.Context, path, front string, n int) (map[string]float64, error) {
	p, err := w.begin(ctx, path)
	if err != nil {
		return nil, err
	}
	defer p.end()
	before, err := anonymous(p.processes)
	if err != nil {
		return nil, err
	}
	streams, err := w.idle(ctx, path, front, n)
	defer closeAll(streams)
	if err != nil {
		return nil, fmt.Errorf("%d idle streams by %s: %w%s", n, path, err, w.logTails(path))
	}
	after, err := anonymous(p.processes)
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for i, key := range []string{MemoryCloud, MemoryEdge} {
		values[key] = float64(after[i]-before[i]) / float64(n)
		values[Memory] += values[key]
	}
	return values, nil
}

// begin starts the proxies of a path and waits until they carry.
func (w *world) begin(ctx context.Context, path string) (proxies, error) {
	running, stop := context.WithCancel(ctx)
	p := proxies{stop: stop}
	var err error
	if path == HAProxy {
		p.processes, err = w.startHAProxy(running)
	} else {
		p.processes, err = w.startRaven(running)
	}
	for _, front := range []string{HTTP, TLS} {
		if err == nil {
			err = w.awaitFront(ctx, path, front)
		}
	}
	if err != nil {
		p.end()
		return p, fmt.Errorf("%w%s", err, w.logTails(path))
	}
	return p, nil
}

func (w *world) awaitFront(ctx context.Context, path, front string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return lab.Await(ctx, fmt.Sprintf("an answer by %s, %s", path, front), func(ctx context.Context) error {
		s, err := w.open(ctx, path, front)
		if err != nil {
			return err
		}
		defer s.Close()
		return errors.Join(s.SetDeadline(time.Now().Add(patience)), s.turn(request(front, pathSmall)))
	})
}

// round measures each metric of all paths before the next metric.
func (w *world) round(ctx context.Context, round int, o Options) ([]Sample, error) {
	var out []Sample
	for _, front := range []string{HTTP, TLS} {
		paths := []string{Direct, HAProxy, Raven}
		of := map[string]map[string]float64{}
		for _, path := range paths {
			of[path] = map[string]float64{}
		}
		for _, n := range []struct {
			streams int
			key     string
		}{{1, Requests1}, {100, Requests2}, {1000, Requests3}} {
			for _, path := range paths {
				perSecond, took, err := w.turns(ctx, path, front, n.streams, o.Each)
				if err != nil {
					return nil, fmt.Errorf("%w%s", err, w.logTails(path))
				}
				of[path][n.key] = perSecond
				if n.streams == 1 {
					of[path][RTT50], of[path][RTT99] = took[len(took)/2], took[len(took)*99/100]
				}
				fmt.Fprintf(o.Progress, "L7, round %d of %d, %s by %s, %d streams: %.0f requests/s, p50 %.0f µs\n", round+1, o.Rounds, front, path,
					n.streams, perSecond, took[len(took)/2])
			}
		}
		for _, path := range paths {
			bits, err := w.throughput(ctx, path, front, o.Each)
			if err != nil {
				return nil, err
			}
			of[path][Throughput] = bits
			fmt.Fprintf(o.Progress, "L7, round %d of %d, %s by %s: %.2f Gb/s\n", round+1, o.Rounds, front, path, bits/1e9)
		}
		for _, path := range paths {
			out = append(out, Sample{Front: front, Path: path, Round: round, Values: of[path]})
		}
	}
	return out, nil
}
