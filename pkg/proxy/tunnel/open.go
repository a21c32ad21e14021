package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/target"
)

// answerLimit is how long an edge may take to say whether it reached the node: its own limit and a slow way there and
// back.
const answerLimit = nodeDialLimit + 5*time.Second

// Upstream is what goes to the node: a client's socket, for example.
type Upstream interface {
	io.Reader
	// Interrupt makes a Read that waits return, and those to come.
	Interrupt()
}

// doubt is how long an edge may be silent about a stream before it is asked whether it is still there, and half of what
// it may take to say so: its node may be slow, but an edge that has vanished must not hold up a request that another
// tunnel can carry.
const doubt = time.Second

// Stream is an open connection to a node. Its bytes come from Read; what goes to the node is taken from the Upstream.
type Stream struct {
	body   io.ReadCloser
	tunnel *accepted
	end    func()
}

// Read implements io.Reader. Where the tunnel was lost, the error says which.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = s.tunnel.explain(err)
	}
	return n, err
}

// explain adds to the error of a stream that its tunnel was lost, where that is so.
func (t *accepted) explain(err error) error {
	select {
	case <-t.link.closed:
	default:
		if t.client.Err() == nil {
			return err
		}
	}
	return fmt.Errorf("the tunnel through the proxy of node %s of gateway %s was lost: %w", t.node, t.gateway, err)
}

// Close ends both directions. It must be called.
func (s *Stream) Close() error {
	s.end()
	return s.body.Close()
}

// Open reaches a node of a gateway's region through one of its tunnels: the one with the fewest streams, and where that
// is lost before the node was reached, the next. Nothing is taken from up before; first goes ahead of it, at once. The
// stream ends when ctx is done. The error is a *refusal.Error.
func (h *Hub) Open(ctx context.Context, gateway string, to target.HostPort, first []byte, up Upstream) (*Stream, error) {
	candidates := h.awaitCandidates(ctx, gateway)
	if len(candidates) == 0 {
		return nil, refusal.New(refusal.NoTunnel, gateway, to.Host.String(), "no proxy of that gateway is connected to this one")
	}
	var last error
	for i, t := range candidates {
		s, err := t.reach(ctx, to, first, up, i+1 < len(candidates))
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
	if e, told := errors.AsType[*refusal.Error](last); told {
		return nil, e
	}
	return nil, refusal.New(refusal.TunnelLost, gateway, to.Host.String(), "%v", last)
}

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
func (t *accepted) reach(ctx context.Context, to target.HostPort, first []byte, up Upstream, others bool) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	t.streams.Add(1) // from now on, so that streams which are opened together spread
	late := fmt.Errorf("the proxy of node %s did not answer within %v", t.node, answerLimit)
	limit := time.AfterFunc(answerLimit, cancel)
	body := &upload{first: first, up: up, open: make(chan struct{}), stop: make(chan struct{})}
	address := to.String()
	request := (&http.Request{
		Method: http.MethodConnect, URL: &url.URL{Scheme: "http", Host: address}, Host: address,
		Header: http.Header{}, Body: body, ContentLength: -1,
	}).WithContext(ctx)
	trusted := func() bool { return true }
	if others {
		trusted = t.watch(ctx, cancel)
	}
	response, err := t.client.RoundTrip(request)
	inTime := limit.Stop()
	if !trusted() {
		err = errors.Join(err, fmt.Errorf("it answered nothing for %v", 3*doubt))
	}
	if err != nil {
		t.streams.Add(-1)
		cancel()
		if !inTime {
			return nil, refusal.New(refusal.DialTimeout, t.gateway, to.Host.String(), "%v", late)
		}
		return nil, fmt.Errorf("open a stream through node %s: %w", t.node, err)
	}
	if response.StatusCode != http.StatusOK {
		t.streams.Add(-1)
		defer cancel()
		text, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		if err != nil {
			text = []byte(err.Error())
		}
		_ = response.Body.Close() // the stream is cancelled anyway
		// The edge's own text repeats what this error says itself.
		detail := strings.TrimSpace(string(text))
		reason := refusal.Known(response.Header.Get(refusal.HeaderReason))
		if _, after, ok := strings.Cut(detail, ": "+string(reason)+": "); ok {
			detail = after
		}
		return nil, refusal.New(reason, t.gateway, to.Host.String(), "%s", detail)
	}
	body.admit()
	return &Stream{body: response.Body, tunnel: t, end: sync.OnceFunc(func() {
		t.streams.Add(-1)
		cancel()
	})}, nil
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

// tell makes a request without an answer worth reading.
func (t *accepted) tell(ctx context.Context, path string, say *refusal.Error) error {
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if say != nil {
		method, body = http.MethodPost, strings.NewReader(say.Detail)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://tunnel"+path, body)
	if err != nil {
		return fmt.Errorf("say %s: %w", path, err)
	}
	if say != nil {
		request.Header.Set(refusal.HeaderReason, string(say.Reason))
		request.Header.Set(refusal.HeaderGateway, say.Gateway)
	}
	response, err := t.client.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("say %s: %w", path, err)
	}
	return response.Body.Close()
}

// refuse says why a tunnel is not taken, and closes it.
func (t *accepted) refuse(ctx context.Context, why *refusal.Error) error {
	return errors.Join(t.tell(ctx, pathRefused, why), t.link.Close())
}

// upload is the body of a CONNECT: the first bytes at once, the rest once the node was reached, so that an attempt that
// fails has taken nothing.
type upload struct {
	first []byte
	up    Upstream
	// open is closed when the rest may be read, stop when nobody wants it.
	open, stop chan struct{}
	opened     sync.Once
	stopped    sync.Once
}

func (u *upload) admit() { u.opened.Do(func() { close(u.open) }) }

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	if len(u.first) > 0 {
		n := copy(p, u.first)
		u.first = u.first[n:]
		return n, nil
	}
	select {
	case <-u.open:
	case <-u.stop:
		return 0, io.ErrClosedPipe
	}
	return u.up.Read(p)
}

// Close implements io.Closer; HTTP/2 calls it when the stream has ended.
func (u *upload) Close() error {
	u.stopped.Do(func() {
		close(u.stop)
		select {
		case <-u.open:
			u.up.Interrupt()
		default:
		}
	})
	return nil
}
