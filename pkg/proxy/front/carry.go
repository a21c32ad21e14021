package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ravencni/raven/pkg/proxy/mux"
	"github.com/ravencni/raven/pkg/proxy/relay"
	"github.com/ravencni/raven/pkg/proxy/target"
	"github.com/ravencni/raven/pkg/proxy/tunnel"
)

// stream is one connection on its way through the proxy.
type stream struct {
	front  *Front
	kind   string // the front end's name
	client *client
	to     target.HostPort
	route  Route
	// first bytes that were read of the client already.
	first []byte
	// begun is called once the node was reached; nil: there is nothing to say to the client.
	begun func() error

	begin             time.Time
	last              atomic.Int64 // nanoseconds since begin
	up, down          atomic.Int64 // bytes
	countUp, countDwn prometheus.Counter
}

// carry runs a stream to its end. The error is a *refusal.Error where the node was not reached.
func (s *stream) carry(ctx context.Context) error {
	s.begin = time.Now()
	s.countUp, s.countDwn = s.front.Metrics.Counters(s.kind)
	stop := s.watchIdle()
	defer stop()
	var err error
	if len(s.route.Direct) > 0 {
		err = s.direct(ctx)
	} else {
		err = s.tunnelled(ctx)
	}
	s.front.Access.Info("stream", "front", s.kind, "source", s.client.source.String(), "client", s.client.name, "target", s.to.String(),
		"gateway", s.route.Gateway, "up", s.up.Load(), "down", s.down.Load(), "seconds", time.Since(s.begin).Seconds(), "error", errorText(err))
	return err
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// watchIdle closes the client's connection once nothing was carried for the limit.
func (s *stream) watchIdle() (stop func()) {
	var timer *time.Timer
	idle := s.front.Idle
	ready := make(chan struct{})
	timer = time.AfterFunc(idle, func() {
		<-ready
		if rest := idle - (time.Since(s.begin) - time.Duration(s.last.Load())); rest > 0 {
			timer.Reset(rest)
			return
		}
		relay.Abort(s.client)
		s.client.cut()
	})
	close(ready)
	return func() { timer.Stop() }
}

func (s *stream) touch() { s.last.Store(int64(time.Since(s.begin))) }

func (s *stream) wentUp(n int) error {
	s.up.Add(int64(n))
	s.countUp.Add(float64(n))
	s.touch()
	return nil
}

func (s *stream) wentDown(n int) error {
	s.down.Add(int64(n))
	s.countDwn.Add(float64(n))
	s.touch()
	return nil
}

func (s *stream) tunnelled(ctx context.Context) error {
	to := s.to
	if s.route.Node != "" {
		to.Host = target.Host{Name: s.route.Node} // the client may have said an address
	}
	remote, err := s.front.Hub.Open(ctx, s.route.Gateway, to, s.first)
	if err != nil {
		return err
	}
	defer remote.Close()
	s.front.Metrics.Opened(s.kind)
	defer s.front.Metrics.Closed(s.kind)
	_ = s.wentUp(len(s.first)) // always nil
	if s.begun != nil {
		err = s.begun()
	}
	if err == nil {
		err = s.bothWays(remote)
	}
	if err != nil {
		relay.Abort(s.client)
		return fmt.Errorf("carry from %s: %w", s.to, err)
	}
	return s.client.Close()
}

// bothWays carries until the node has said all and the client has it.
func (s *stream) bothWays(remote *tunnel.Stream) error {
	s.client.stream.Store(remote)
	defer s.client.stream.Store(nil)
	client := s.client.socket()
	delivered := make(chan error, 1)
	remote.Deliver(client, func(n int) { _ = s.wentDown(n) }, func(err error) { // always nil
		delivered <- err
		_ = client.SetReadDeadline(time.Unix(1, 0)) // nobody listens to the client any more
	})
	err := remote.Send(client, func(n int) { _ = s.wentUp(n) }) // always nil
	if err == nil {
		err = remote.CloseWrite()
	}
	if err != nil {
		remote.Reset() // unless the node has said all, after which nobody need listen to the client
	}
	ended := <-delivered
	if err != nil && errors.Is(ended, mux.ErrReset) {
		return err // the cause
	}
	return ended
}

func (s *stream) direct(ctx context.Context) error {
	node, err := tunnel.ConnectNode(ctx, s.front.Dial, s.route.Gateway, s.to.Host.String(), s.route.Direct)
	if err != nil {
		return err
	}
	s.front.Metrics.Opened(s.kind)
	defer s.front.Metrics.Closed(s.kind)
	if len(s.first) > 0 {
		_, err = node.Write(s.first)
		_ = s.wentUp(len(s.first)) // always nil
	}
	if s.begun != nil && err == nil {
		err = s.begun()
	}
	if err != nil {
		relay.Abort(node)
		relay.Abort(s.client)
		return fmt.Errorf("begin with %s: %w", s.to, err)
	}
	up := make(chan error, 1)
	go func() { up <- half(node, s.client, s.wentUp) }()
	err = half(s.client, node, s.wentDown)
	return errors.Join(err, <-up, node.Close(), s.client.Close())
}

// half carries one direction; where it is cut off, so is the other.
func half(dst, src net.Conn, wrote func(int) error) error {
	err := relay.FromSocket(dst, src, wrote)
	if err == nil {
		err = relay.CloseWrite(dst)
	}
	if err != nil {
		relay.Abort(src)
		relay.Abort(dst)
		return fmt.Errorf("carry between %s and %s: %w", src.RemoteAddr(), dst.RemoteAddr(), err)
	}
	return nil
}
