package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// sink is a connection that takes what arrives on a stream.
type sink struct {
	conn net.Conn
	raw  syscall.RawConn // nil: it has none
	took func(int)
	done func(error)
	// writing: a goroutine writes what the socket did not take at once.
	writing bool

	// Of one attempt to write without waiting.
	p   []byte
	n   int
	err error
	try func(fd uintptr) bool
}

// socket is the connection's own, nil where it has none.
func socket(c net.Conn) syscall.RawConn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// Deliver has what arrives written to a connection. took is called with the number of bytes after each write, done once: with
// nil when the peer has said all and all of it was written, else with what was in the way, which has also cut the
// stream off. Neither may wait for anything. Nobody may read the stream any more.
func (s *Stream) Deliver(to net.Conn, took func(int), done func(error)) {
	out := &sink{conn: to, raw: socket(to), took: took, done: done}
	out.try = func(fd uintptr) bool {
		for {
			out.n, out.err = unix.Write(int(fd), out.p)
			if out.err != unix.EINTR {
				return true
			}
		}
	}
	s.c.mu.Lock()
	switch {
	case s.err != nil:
		err := s.err
		s.c.mu.Unlock()
		done(err)
	case s.in.n > 0 || out.raw == nil && !s.ended:
		s.sink = out
		s.startWriter()
		s.c.mu.Unlock()
	case s.ended:
		s.c.mu.Unlock()
		done(nil)
	default:
		s.sink = out
		s.c.mu.Unlock()
	}
}

// write writes what the socket takes without waiting.
func (k *sink) write(p []byte) (int, error) {
	k.p, k.n, k.err = p, 0, nil
	err := k.raw.Write(k.try)
	k.p = nil
	switch {
	case err != nil:
		return 0, fmt.Errorf("write to a socket: %w", err)
	case k.err == unix.EAGAIN:
		return 0, nil
	case k.err != nil:
		return 0, fmt.Errorf("write to a socket: %w", k.err)
	}
	return k.n, nil
}

// arrived takes a payload, and as many bytes of padding. It is called under the mutex, and unlocks it.
func (s *Stream) arrived(p []byte, padding int, end bool) error {
	out := s.sink
	if s.err != nil || s.ended {
		update := s.c.tookLocked(len(p) + padding)
		s.c.mu.Unlock()
		return s.c.tell(update)
	}
	if out == nil || out.writing || out.raw == nil {
		s.in.put(p)
		update := s.tookLocked(padding)
		s.ended = s.ended || end
		if s.ended && s.finished {
			s.over()
		}
		s.cond.Broadcast()
		s.c.mu.Unlock()
		return s.c.tell(update)
	}
	s.c.mu.Unlock()
	// Nobody else writes to the socket now.
	n, err := 0, error(nil)
	if len(p) > 0 {
		n, err = out.write(p)
	}
	if n > 0 {
		out.took(n)
	}
	s.c.mu.Lock()
	if err != nil || s.err != nil {
		update := s.c.tookLocked(len(p) + padding)
		s.c.mu.Unlock()
		if err != nil {
			s.lost(out, err)
		}
		return s.c.tell(update)
	}
	update := s.tookLocked(n + padding)
	if n < len(p) {
		s.in.put(p[n:])
		s.ended = end
		s.startWriter()
		s.c.mu.Unlock()
		return s.c.tell(update)
	}
	s.c.mu.Unlock()
	if end {
		s.endArrived()
	}
	return s.c.tell(update)
}

// endArrived: the peer has said all.
func (s *Stream) endArrived() {
	s.c.mu.Lock()
	s.ended = true
	if s.finished {
		s.over()
	}
	s.cond.Broadcast()
	out := s.sink
	if out == nil || out.writing || out.raw == nil || s.err != nil {
		s.c.mu.Unlock()
		return
	}
	s.sink = nil
	s.c.mu.Unlock()
	out.done(nil)
}

// lost cuts the stream off since its socket takes nothing more.
func (s *Stream) lost(out *sink, err error) {
	s.c.mu.Lock()
	if s.sink == out {
		s.sink = nil
	} else {
		out = nil // it was told
	}
	s.c.mu.Unlock()
	s.Reset()
	if out != nil {
		out.done(err)
	}
}

// startWriter has a goroutine write what the socket does not take at once; whoever waits for done waits for it. Call it
// under the mutex.
func (s *Stream) startWriter() {
	out := s.sink
	out.writing = true
	go func() {
		err := s.writeAll(out)
		if err == errStopped {
			return
		}
		if err != nil {
			s.Reset()
		}
		out.done(err)
	}()
}

// errStopped: the goroutine that reads goes on.
var errStopped = errors.New("the socket takes bytes at once again")

// writeAll writes until nothing is left, and where the connection is no socket, until the end.
func (s *Stream) writeAll(out *sink) error {
	for {
		s.c.mu.Lock()
		for s.in.n == 0 && s.err == nil && !s.ended && out.raw == nil {
			s.cond.Wait()
		}
		switch {
		case s.err != nil:
			err := s.err
			s.sink = nil
			s.c.mu.Unlock()
			return err
		case s.in.n == 0 && s.ended:
			s.sink = nil
			s.c.mu.Unlock()
			return nil
		case s.in.n == 0:
			out.writing = false
			s.c.mu.Unlock()
			return errStopped
		}
		p := s.in.next()
		s.c.mu.Unlock()
		_, err := out.conn.Write(p.rest)
		if err == nil {
			out.took(len(p.rest))
		}
		s.c.mu.Lock()
		update := s.tookLocked(len(p.rest))
		p.free()
		if err != nil {
			s.sink = nil
		}
		s.c.mu.Unlock()
		if err != nil {
			return fmt.Errorf("write to a socket: %w", err)
		}
		if len(update) > 0 {
			_ = s.c.out.write(update, nil) // reading tells of the end
		}
	}
}

// Send reads a connection until its end, or that of the stream, and sends what it says. took is called with the number of
// bytes of each piece. A socket that says nothing costs no buffer.
func (s *Stream) Send(from net.Conn, took func(int)) error {
	s.c.mu.Lock()
	err := s.err
	s.source = from
	s.c.mu.Unlock()
	if err != nil {
		return err
	}
	if raw := socket(from); raw != nil {
		err = s.sendSocket(raw, took)
	} else {
		err = s.sendSlowly(from, took)
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.source = nil
	if err != nil && s.err != nil {
		return s.err // whose consequence the other is
	}
	return err
}

func (s *Stream) sendSocket(raw syscall.RawConn, took func(int)) error {
	var r reading
	r.try = r.read
	for {
		if err := r.next(raw); err != nil {
			return err
		}
		n := r.n
		err := error(io.EOF)
		if n > 0 {
			err = s.writeChunk(r.buf[:], n)
		}
		chunks.Put(r.buf)
		r.buf = nil
		switch {
		case n == 0:
			return nil
		case err != nil:
			return err
		}
		took(n)
	}
}

// reading is one read of a socket.
type reading struct {
	buf *[chunk]byte // a frame's header and its payload
	n   int
	err error
	try func(fd uintptr) bool
}

// read takes a buffer once there is something.
func (r *reading) read(fd uintptr) bool {
	r.buf = chunks.Get().(*[chunk]byte)
	for {
		r.n, r.err = unix.Read(int(fd), r.buf[headerBytes:])
		if r.err != unix.EINTR {
			break
		}
	}
	if r.err == unix.EAGAIN {
		chunks.Put(r.buf)
		r.buf = nil
		return false
	}
	return true
}

// next waits for bytes; none are the end.
func (r *reading) next(raw syscall.RawConn) error {
	r.n, r.err = 0, nil
	err := raw.Read(r.try)
	if err == nil {
		err = r.err
	}
	if err != nil {
		if r.buf != nil {
			chunks.Put(r.buf)
			r.buf = nil
		}
		return fmt.Errorf("read a socket: %w", err)
	}
	return nil
}

// sendSlowly is for what is no socket: TLS, or a test's pipe. Nobody can say whether it has something to say, so the
// buffer is small while little comes.
func (s *Stream) sendSlowly(from net.Conn, took func(int)) error {
	const sip = 512
	small := make([]byte, sip)
	for {
		n, err := from.Read(small)
		if n > 0 {
			if _, writeErr := s.Write(small[:n]); writeErr != nil {
				return writeErr
			}
			took(n)
		}
		for err == nil && n >= sip {
			buf := chunks.Get().(*[chunk]byte)
			n = sip
			for err == nil && n >= sip {
				if n, err = from.Read(buf[headerBytes:]); n > 0 {
					if writeErr := s.writeChunk(buf[:], n); writeErr != nil {
						chunks.Put(buf)
						return writeErr
					}
					took(n)
				}
			}
			chunks.Put(buf)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a connection: %w", err)
		}
	}
}
