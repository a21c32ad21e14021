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

// Stream is an open connection to a node. Its bytes come from Read; what goes to the node is taken from the Upstream.
type Stream struct {
	io.ReadCloser
	end func()
}

// Close ends both directions. It must be called.
func (s *Stream) Close() error {
	s.end()
	return s.ReadCloser.Close()
}

// Open reaches a node of a gateway's region through one of its tunnels: the one with the fewest streams, and where that
// is lost before the node was reached, the next. Nothing is taken from up before; first goes ahead of it, at once. The
// stream ends when ctx is done. The error is a *refusal.Error.
func (h *Hub) Open(ctx context.Context, gateway string, to target.HostPort, first []byte, up Upstream) (*Stream, error) {
	candidates := h.candidates(gateway)
	if len(candidates) == 0 {
		return nil, refusal.New(refusal.NoTunnel, gateway, to.Host.String(), "no proxy of that gateway is connected to this one")
	}
	var last error
	for _, t := range candidates {
		s, err := t.open(ctx, to, first, up)
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

func (h *Hub) candidates(gateway string) []*accepted {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*accepted
	load := map[*accepted]int64{}
	for t := range h.tunnels {
		if t.gateway == gateway && !t.retired && t.client.Err() == nil {
			out = append(out, t)
			load[t] = t.streams.Load()
		}
	}
	slices.SortFunc(out, func(a, b *accepted) int { return cmp.Compare(load[a], load[b]) })
	return out
}

func (t *accepted) open(ctx context.Context, to target.HostPort, first []byte, up Upstream) (*Stream, error) {
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
	response, err := t.client.RoundTrip(request)
	inTime := limit.Stop()
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
	return &Stream{ReadCloser: response.Body, end: sync.OnceFunc(func() {
		t.streams.Add(-1)
		cancel()
	})}, nil
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
