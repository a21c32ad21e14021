package mux

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Request opens a stream. The keys of headers are of small letters.
type Request struct {
	// Method, Authority and Path are the pseudo headers of these names; CONNECT has no path.
	Method, Authority, Path string
	Header                  map[string]string
}

// Response answers it.
type Response struct {
	Status int
	Header map[string]string
}

// Open opens a stream, with the first bytes on it at once. The answer is awaited by Response. The error is ErrNotTaken
// where the peer knows nothing of it.
func (c *Conn) Open(r Request, first []byte) (*Stream, error) {
	fields := []hpack.HeaderField{{Name: ":method", Value: r.Method}, {Name: ":authority", Value: r.Authority}}
	if r.Method != "CONNECT" {
		fields = append(fields, hpack.HeaderField{Name: ":scheme", Value: "http"}, hpack.HeaderField{Name: ":path", Value: r.Path})
	}
	c.headers.Lock()
	c.mu.Lock()
	var err error
	switch {
	case c.err != nil: // since the choice of this connection; nothing of the stream was said on it
		err = fmt.Errorf("%w: %w", ErrNotTaken, c.err)
	case c.parting || len(c.streams) >= c.peerStreams || c.next > maxWindow:
		err = ErrNotTaken
	}
	if err != nil {
		c.mu.Unlock()
		c.headers.Unlock()
		return nil, err
	}
	s := c.newStream(c.next)
	c.next += 2
	c.mu.Unlock()
	err = c.sendHeaders(s.id, fields, r.Header, false)
	c.headers.Unlock()
	if err == nil && len(first) > 0 {
		_, err = s.Write(first)
	}
	if err != nil {
		s.fail(err)
		return nil, err
	}
	return s, nil
}

// sendHeaders: call it under the lock of headers.
func (c *Conn) sendHeaders(id uint32, fields []hpack.HeaderField, more map[string]string, end bool) error {
	c.block.Reset()
	for _, f := range fields {
		if err := c.fields.WriteField(f); err != nil {
			return fmt.Errorf("encode headers: %w", err)
		}
	}
	for name, value := range more {
		if err := c.fields.WriteField(hpack.HeaderField{Name: name, Value: value}); err != nil {
			return fmt.Errorf("encode headers: %w", err)
		}
	}
	if c.block.Len() > usualFrame {
		return errors.New("the headers are too long for a frame")
	}
	return c.out.write(frame(func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end})
	}), nil)
}

// Response waits for the peer's answer. Where ctx is done before, the stream is cut off.
func (s *Stream) Response(ctx context.Context) (Response, error) {
	stop := context.AfterFunc(ctx, func() { s.reset(http2.ErrCodeCancel) })
	defer stop()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for s.response.Status == 0 && s.err == nil {
		s.cond.Wait()
	}
	if s.response.Status == 0 {
		return Response{}, errors.Join(context.Cause(ctx), s.err)
	}
	return s.response, nil
}

// Request is what a stream was opened with.
func (s *Stream) Request() Request { return s.request }

// Respond answers. end: there is nothing behind the headers.
func (s *Stream) Respond(r Response, end bool) error {
	s.c.headers.Lock()
	defer s.c.headers.Unlock()
	s.c.mu.Lock()
	err := s.err
	if err == nil && end {
		s.finished = true
		if s.ended {
			s.over()
		}
	}
	s.c.mu.Unlock()
	if err != nil {
		return err
	}
	return s.c.sendHeaders(s.id, []hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(r.Status)}}, r.Header, end)
}

// setRequest: call it under the mutex.
func (s *Stream) setRequest(f *http2.MetaHeadersFrame) {
	s.request = Request{
		Method: f.PseudoValue("method"), Authority: f.PseudoValue("authority"), Path: f.PseudoValue("path"), Header: regular(f),
	}
}

func regular(f *http2.MetaHeadersFrame) map[string]string {
	fields := f.RegularFields()
	if len(fields) == 0 {
		return nil
	}
	out := make(map[string]string, len(fields))
	for _, h := range fields {
		out[h.Name] = h.Value
	}
	return out
}

// gotHeaders takes an answer, or what comes behind all data.
func (s *Stream) gotHeaders(f *http2.MetaHeadersFrame) {
	status, err := strconv.Atoi(f.PseudoValue("status"))
	s.c.mu.Lock()
	first := s.c.client() && s.response.Status == 0
	switch {
	case first && (err != nil || status < 100):
		s.c.mu.Unlock()
		s.reset(http2.ErrCodeProtocol)
		return
	case first && status < 200 && !f.StreamEnded():
		s.c.mu.Unlock()
		return // more will come
	case first:
		s.response = Response{Status: status, Header: regular(f)}
		s.cond.Broadcast()
	case !f.StreamEnded():
		s.c.mu.Unlock()
		s.reset(http2.ErrCodeProtocol)
		return
	}
	s.c.mu.Unlock()
	if f.StreamEnded() {
		s.endArrived()
	}
}
