package l7

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// opening is how many connections are opened at a time: front ends bound how many clients of one address have not said
// yet what they want.
const opening = 16

// openAll opens n streams, each of which has had one answer.
func (w *world) openAll(ctx context.Context, path, front string, n int, request []byte, first func(*stream) error) ([]*stream, error) {
	streams := make([]*stream, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(opening)
	for i := range streams {
		group.Go(func() error {
			s, err := w.open(ctx, path, front)
			if err != nil {
				return err
			}
			streams[i] = s
			if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
				return fmt.Errorf("set a deadline: %w", err)
			}
			return first(s)
		})
	}
	return streams, group.Wait()
}

func closeAll(streams []*stream) {
	for _, s := range streams {
		if s != nil {
			_ = s.Close() // nothing is lost
		}
	}
}

// turns measures small requests on n streams, one after the other on each: their number per second, and how long each took in
// microseconds, sorted.
func (w *world) turns(ctx context.Context, path, front string, n int, each time.Duration) (perSecond float64, took []float64, err error) {
	req := request(front, pathSmall)
	streams, err := w.openAll(ctx, path, front, n, req, func(s *stream) error { return s.turn(req) })
	defer closeAll(streams)
	if err != nil {
		return 0, nil, err
	}
	// All at once for the first time: proxies make the connections between them that so many streams take.
	var warming errgroup.Group
	for _, s := range streams {
		warming.Go(func() error {
			return errors.Join(s.SetDeadline(time.Now().Add(patience)), s.turn(req))
		})
	}
	if err := warming.Wait(); err != nil {
		return 0, nil, fmt.Errorf("%d streams by %s begin: %w", n, path, err)
	}
	var mu sync.Mutex
	begin := time.Now()
	until := begin.Add(each)
	var group errgroup.Group
	for _, s := range streams {
		group.Go(func() error {
			if err := s.SetDeadline(until.Add(patience)); err != nil {
				return fmt.Errorf("set a deadline: %w", err)
			}
			own := make([]float64, 0, 4096)
			for now := time.Now(); now.Before(until) && ctx.Err() == nil; {
				if err := s.turn(req); err != nil {
					return err
				}
				then := now
				now = time.Now()
				own = append(own, float64(now.Sub(then).Nanoseconds())/1e3)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, own...)
			return nil
		})
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return 0, nil, fmt.Errorf("%d streams by %s: %w", n, path, err)
	}
	perSecond = float64(len(took)) / time.Since(begin).Seconds()
	slices.SortFunc(took, cmp.Compare)
	return perSecond, took, nil
}

// throughput measures what one stream brings, in bits per second.
func (w *world) throughput(ctx context.Context, path, front string, each time.Duration) (float64, error) {
	s, err := w.open(ctx, path, front)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, fmt.Errorf("set a deadline: %w", err)
	}
	if _, err := s.ask(request(front, pathEndless)); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := s.SetDeadline(begin.Add(each)); err != nil {
		return 0, fmt.Errorf("set a deadline: %w", err)
	}
	buffer := make([]byte, 128<<10)
	total := 0
	for err == nil {
		var n int
		n, err = s.Conn.Read(buffer)
		total += n
	}
	var timeout interface{ Timeout() bool }
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		return 0, fmt.Errorf("a stream by %s ended: %w", path, err)
	}
	return float64(total) * 8 / time.Since(begin).Seconds(), nil
}

// idle opens n streams that stand still after their first bytes.
func (w *world) idle(ctx context.Context, path, front string, n int) ([]*stream, error) {
	req := request(front, pathIdle)
	return w.openAll(ctx, path, front, n, req, func(s *stream) error {
		if _, err := s.ask(req); err != nil {
			return err
		}
		_, err := io.CopyN(io.Discard, s.in, 2) // the body has begun
		return err
	})
}
