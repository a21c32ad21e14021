package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/proxy/mux"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
)

// answerLimit is how long an edge may take to say whether it reached the node: its own limit and a slow way there and
// back.
const answerLimit = nodeDialLimit + 5*time.Second

// doubt is how long an edge may be silent about a stream before it is asked whether it is still there, and half of what
// it may take to say so: its node may be slow, but an edge that has vanished must not hold up a request that another
// tunnel can carry.
const doubt = time.Second

// Stream is an open connection to a node.
type Stream struct {
	*mux.Stream
	tunnel *accepted
	end    func()
}

// Read implements io.Reader. Where the tunnel was lost, the error says which.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = s.tunnel.explain(err)
	}
	return n, err
}

// Deliver is that of mux.Stream; where the tunnel was lost, the error says which.
func (s *Stream) Deliver(to net.Conn, took func(int), done func(error)) {
	s.Stream.Deliver(to, took, func(err error) {
		if err != nil {
			err = s.tunnel.explain(err)
		}
		done(err)
	})
}

// explain adds to the error of a stream that its tunnel was lost, where that is so.
func (t *accepted) explain(err error) error {
	if t.mux.Err() == nil {
		return err
	}
	return fmt.Errorf("the tunnel through the proxy of node %s of gateway %s was lost: %w", t.node, t.gateway, err)
}

// Close ends both directions. It must be called.
func (s *Stream) Close() {
	s.Stream.Close()
	s.end()
}

// Open reaches a node of a gateway's region through one of its tunnels: the one with the fewest streams, and where that
// is lost before the node was reached, the next. first goes ahead of all that is written later, at once; nothing else
// is lost with an attempt that fails. ctx bounds the opening alone. The error is a *refusal.Error.
func (h *Hub) Open(ctx context.Context, gateway string, to target.HostPort, first []byte) (*Stream, error) {
	var last error
	for range attempts {
		candidates := h.awaitCandidates(ctx, gateway)
		if len(candidates) == 0 {
			return nil, refusal.New(refusal.NoTunnel, gateway, to.Host.String(), "no proxy of that gateway is connected to this one")
		}
		for i, t := range candidates {
			s, err := t.reach(ctx, to, first, i+1 < len(candidates))
			if err == nil {
				return s, nil
			}
			if e, told := errors.AsType[*refusal.Error](err); told && e.Reason != refusal.DialTimeout {
				return nil, err // the edge's own word
			}
			if last = err; ctx.Err() != nil {
				break
			}
		}
		if !errors.Is(last, mux.ErrNotTaken) || ctx.Err() != nil {
			break
		} // else the last one has parted meanwhile, and its successor was not known yet
	}
	if e, told := errors.AsType[*refusal.Error](last); told {
		return nil, e
	}
	return nil, refusal.New(refusal.TunnelLost, gateway, to.Host.String(), "%v", last)
}

// attempts to find a tunnel that takes a stream.
const attempts = 3

// soon is how long after this proxy began, or a gateway's last tunnel ended, that gateway is expected to connect: an
// update of its proxy takes less.
const soon = 30 * time.Second

// awaitCandidates returns the tunnels to try, the best first. Where there is none, but one is expected, it waits.
func (h *Hub) awaitCandidates(ctx context.Context, gateway string) []*accepted {
	limit := time.NewTimer(h.Limits.Hold)
	defer limit.Stop()
	for {
		h.mu.Lock()
		found, expected, arrived := h.candidates(gateway), h.expects(gateway), h.arrived
		h.mu.Unlock()
		if len(found) > 0 || !expected {
			return found
		}
		select {
		case <-arrived:
		case <-limit.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// expects says whether a tunnel of a gateway may come any moment. Call it under the mutex.
func (h *Hub) expects(gateway string) bool {
	for t := range h.tunnels {
		if t.gateway == gateway {
			return true // it is about to end, and its edge will be back
		}
	}
	return !h.draining && (time.Since(h.born) < soon || time.Since(h.lost[gateway]) < soon)
}

// candidates: call it under the mutex.
func (h *Hub) candidates(gateway string) []*accepted {
	var out []*accepted
	load := map[*accepted]int64{}
	for t := range h.tunnels {
		if t.gateway == gateway && t.open() {
			out = append(out, t)
			if load[t] = t.streams.Load(); t.doubted.Load() {
				load[t] += 2 * maxStreams // behind all others
			}
		}
	}
	slices.SortFunc(out, func(a, b *accepted) int { return cmp.Compare(load[a], load[b]) })
	return out
}

// reach asks the edge to reach a node. others: there are more tunnels to try, so an edge that does not answer even a ping
// is given up early.
func (t *accepted) reach(ctx context.Context, to target.HostPort, first []byte, others bool) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.streams.Add(1) // from now on, so that streams which are opened together spread
	stream, err := t.ask(ctx, cancel, to, first, others)
	if err != nil {
		t.streams.Add(-1)
		return nil, err
	}
	return &Stream{Stream: stream, tunnel: t, end: sync.OnceFunc(func() { t.streams.Add(-1) })}, nil
}

func (t *accepted) ask(ctx context.Context, cancel context.CancelFunc, to target.HostPort, first []byte, others bool) (*mux.Stream, error) {
	limit := time.AfterFunc(answerLimit, cancel)
	defer limit.Stop()
	trusted := func() bool { return true }
	if others {
		trusted = t.watch(ctx, cancel)
	}
	stream, err := t.mux.Open(mux.Request{Method: http.MethodConnect, Authority: to.String()}, first)
	var answer mux.Response
	if err == nil {
		if answer, err = stream.Response(ctx); err != nil {
			stream.Close()
		}
	}
	inTime := limit.Stop()
	if !trusted() {
		err = errors.Join(err, fmt.Errorf("it answered nothing for %v", 3*doubt))
		if stream != nil {
			stream.Close()
		}
	}
	switch {
	case err != nil && !inTime:
		return nil, refusal.New(refusal.DialTimeout, t.gateway, to.Host.String(), "the proxy of node %s did not answer within %v", t.node, answerLimit)
	case err != nil:
		return nil, fmt.Errorf("open a stream through node %s: %w", t.node, err)
	case answer.Status != http.StatusOK:
		defer stream.Close()
		return nil, t.refusal(ctx, stream, answer, to)
	}
	return stream, nil
}

// refusal is what an edge says instead of reaching a node.
func (t *accepted) refusal(ctx context.Context, stream *mux.Stream, answer mux.Response, to target.HostPort) error {
	stop := context.AfterFunc(ctx, stream.Reset)
	defer stop()
	text, err := io.ReadAll(io.LimitReader(stream, 1<<10))
	if err != nil {
		text = []byte(err.Error())
	}
	// The edge's own text repeats what this error says itself.
	detail := strings.TrimSpace(string(text))
	reason := refusal.Known(answer.Header[headerReason])
	if _, after, ok := strings.Cut(detail, ": "+string(reason)+": "); ok {
		detail = after
	}
	return refusal.New(reason, t.gateway, to.Host.String(), "%s", detail)
}

// watch asks an edge that is silent whether it is still there, and cancels the attempt where it is not. The returned
// function ends that, and says whether the attempt stands.
func (t *accepted) watch(ctx context.Context, cancel func()) (trusted func() bool) {
	ctx, stop := context.WithCancel(ctx)
	given := make(chan bool, 1)
	timer := time.AfterFunc(doubt, func() {
		pinging, done := context.WithTimeout(ctx, 2*doubt)
		defer done()
		up := t.tell(pinging, pathPing, nil) == nil || ctx.Err() != nil
		if !up {
			t.doubted.Store(true)
			cancel()
		}
		given <- up
	})
	return func() bool {
		stop()
		return timer.Stop() || <-given
	}
}

// Names of headers, as HTTP/2 has them.
var (
	headerReason  = strings.ToLower(refusal.HeaderReason)
	headerGateway = strings.ToLower(refusal.HeaderGateway)
)

// tell makes a request without an answer worth reading.
func (t *accepted) tell(ctx context.Context, path string, say *refusal.Error) error {
	request, body := mux.Request{Method: http.MethodGet, Authority: "tunnel", Path: path}, ""
	if say != nil {
		request.Method, body = http.MethodPost, say.Detail
		request.Header = map[string]string{headerReason: string(say.Reason), headerGateway: say.Gateway}
	}
	stream, err := t.mux.Open(request, []byte(body))
	if err == nil {
		defer stream.Close()
		if err = stream.CloseWrite(); err == nil {
			_, err = stream.Response(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("say %s: %w", path, err)
	}
	return nil
}

// refuse says why a tunnel is not taken, and closes it.
func (t *accepted) refuse(ctx context.Context, why *refusal.Error) error {
	return errors.Join(t.tell(ctx, pathRefused, why), t.link.Close())
}
