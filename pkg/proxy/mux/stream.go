package mux

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Stream is one stream of a connection. Its methods may be called from any goroutine, those that read from one at a time,
// and those that write likewise.
type Stream struct {
	c  *Conn
	id uint32
	// gone is closed once the stream was cut off, or is over in both directions.
	gone chan struct{}

	// What follows is guarded by the connection's mutex. cond tells of any change.
	cond sync.Cond
	// room that the peer grants.
	room int
	// left of what this side grants, and taken of it, not told yet.
	left, taken int
	in          backlog
	sink        *sink
	source      net.Conn // what Send reads
	// ended: the peer has said all; finished: this side has.
	ended, finished bool
	err             error

	request  Request
	response Response
}

// long ago: the deadline of what is to wait no longer.
var long = time.Unix(1, 0)

// newStream: call it under the mutex.
func (c *Conn) newStream(id uint32) *Stream {
	s := &Stream{c: c, id: id, gone: make(chan struct{}), room: c.peerWindow, left: c.StreamWindow}
	s.cond.L = &c.mu
	c.streams[id] = s
	return s
}

// over forgets a stream that has ended in both directions. Call it under the mutex.
func (s *Stream) over() {
	if s.c.streams[s.id] == s {
		delete(s.c.streams, s.id)
		close(s.gone)
		s.c.checkIdle()
		if s.source != nil {
			_ = s.source.SetReadDeadline(long) // what is closed is not read
		}
	}
}

// cut ends the stream with an error, and returns its sink, which is to be told. Call it under the mutex.
func (s *Stream) cut(err error) *sink {
	if s.err == nil {
		s.err = err
	}
	s.cond.Broadcast()
	s.over()
	out := s.sink
	if out != nil && out.writing {
		_ = out.conn.SetWriteDeadline(long) // what is closed waits for nothing
		return nil                          // its writer tells
	}
	s.sink = nil
	return out
}

// fail ends the stream for a reason that the peer knows.
func (s *Stream) fail(err error) {
	s.c.mu.Lock()
	over := s.ended && s.finished || s.err != nil
	var out *sink
	if !over {
		out = s.cut(err)
	}
	s.c.mu.Unlock()
	if out != nil {
		out.done(err)
	}
}

func (s *Stream) wasReset(code http2.ErrCode) {
	err := fmt.Errorf("%w by the peer: %v", ErrReset, code)
	if code == http2.ErrCodeRefusedStream {
		err = ErrNotTaken
	}
	if code == http2.ErrCodeNo && s.c.client() {
		// The peer has answered, and does not want to hear the rest.
		s.c.mu.Lock()
		quiet := s.ended
		if quiet {
			s.finished = true
			s.cond.Broadcast()
			s.over()
		}
		s.c.mu.Unlock()
		if quiet {
			return
		}
	}
	s.fail(err)
}

// reset cuts the stream off, and tells the peer unless it has heard all and said all.
func (s *Stream) reset(code http2.ErrCode) {
	s.c.mu.Lock()
	tell := s.err == nil && !(s.ended && s.finished)
	var out *sink
	if tell {
		out = s.cut(fmt.Errorf("%w by this side", ErrReset))
	}
	s.c.mu.Unlock()
	if tell {
		_ = s.c.out.post(frame(func(w *http2.Framer) error { return w.WriteRSTStream(s.id, code) })) // reading tells of the end
	}
	if out != nil {
		out.done(s.err)
	}
}

// Reset cuts both directions off, so that the peer does not take it for an end.
func (s *Stream) Reset() { s.reset(http2.ErrCodeInternal) }

// Close ends what has not ended: the peer hears an end if everything was said to it, and is told to say nothing more.
func (s *Stream) Close() {
	s.c.mu.Lock()
	finished := s.finished
	s.c.mu.Unlock()
	if finished {
		s.reset(http2.ErrCodeNo)
	} else {
		s.reset(http2.ErrCodeCancel)
	}
}

// Context is done with the parent, and when the stream is over. Call cancel.
func (s *Stream) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	stop := make(chan struct{})
	go func() {
		select {
		case <-s.gone:
			cancel()
		case <-stop:
		}
	}()
	return ctx, sync.OnceFunc(func() { close(stop); cancel() })
}

// Idle says whether the peer has said nothing that was not read, and has not ended the stream.
func (s *Stream) Idle() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.err == nil && !s.ended && !s.finished && s.in.n == 0
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	s.c.mu.Lock()
	for s.in.n == 0 && !s.ended && s.err == nil {
		s.cond.Wait()
	}
	n := s.in.take(p)
	err := s.err
	if err == nil && s.ended {
		err = io.EOF
	}
	update := s.tookLocked(n)
	s.c.mu.Unlock()
	if len(update) > 0 {
		_ = s.c.out.write(update, nil) // reading tells of the end
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, err
}

// tookLocked notes that bytes were taken, and returns what to tell the peer. Call it under the mutex.
func (s *Stream) tookLocked(n int) []byte {
	update := s.c.tookLocked(n)
	if s.taken += n; s.taken >= s.c.StreamWindow/4 && !s.ended && s.err == nil {
		update = append(update, windowUpdate(s.id, s.taken)...)
		s.left, s.taken = s.left+s.taken, 0
	}
	return update
}

// Write implements io.Writer.
func (s *Stream) Write(p []byte) (int, error) {
	var header [headerBytes]byte
	for done := 0; done < len(p); {
		n, err := s.reserve(len(p) - done)
		if err != nil {
			return done, err
		}
		putHeader(header[:], n, false, s.id)
		if err := s.c.out.write(header[:], p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// writeChunk writes the n bytes behind a frame's header that a chunk has room for, without copying them.
func (s *Stream) writeChunk(b []byte, n int) error {
	for done := 0; done < n; {
		k, err := s.reserve(n - done)
		if err != nil {
			return err
		}
		putHeader(b[done:], k, false, s.id) // over bytes that were written
		if err := s.c.out.writeWhole(b[done : done+headerBytes+k]); err != nil {
			return err
		}
		done += k
	}
	return nil
}

// reserve waits for room for some of n bytes, and takes it.
func (s *Stream) reserve(n int) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for {
		switch {
		case s.err != nil:
			return 0, s.err
		case s.finished:
			return 0, io.ErrClosedPipe
		}
		if k := min(n, s.c.payload(), s.room, s.c.room); k > 0 {
			s.room -= k
			s.c.room -= k
			return k, nil
		}
		s.cond.Wait()
	}
}

// payload is the most that a frame should hold: such that it fills records. Call it under the mutex.
func (c *Conn) payload() int {
	return min(max(c.peerFrame/record, 1)*record, chunk) - headerBytes
}

// CloseWrite says that there is nothing more to say.
func (s *Stream) CloseWrite() error {
	s.c.mu.Lock()
	if s.err != nil || s.finished {
		defer s.c.mu.Unlock()
		return s.err
	}
	s.finished = true
	if s.ended {
		s.over()
	}
	s.c.mu.Unlock()
	var header [headerBytes]byte
	putHeader(header[:], 0, true, s.id)
	return s.c.out.write(header[:], nil)
}
