package front

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxAnswer bounds the headers of a node's answer in bytes.
	maxAnswer = 1 << 20
	// sentWait is how long a connection whose answer is complete waits for the request to be, before it is given up.
	sentWait = 50 * time.Millisecond
	// maxInterim bounds the answers before the answer (RFC 9110, section 15.2).
	maxInterim = 5
)

// nodeConn is a connection to a node that carries one request after the other.
type nodeConn struct {
	net.Conn
	pools    *pools
	at       place
	retreats int       // of its gateway, when it began
	since    time.Time // it is kept
	// left of what the node may say before its headers end.
	left int64
}

// stands says whether a connection that waits for a request is neither closed nor about to say something unasked.
func (c *nodeConn) stands() bool {
	if s, ok := c.Conn.(interface{ Idle() bool }); ok {
		return s.Idle()
	}
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return true // the exchange will tell
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(err, unix.EAGAIN)
	})
	return err == nil && quiet
}

// Read implements io.Reader.
func (c *nodeConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the headers of the node's answer are longer than %d bytes", maxAnswer)
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, err
}

// Buffers are held while they are in use only. A reader is for heads and small pieces: large ones go past it, and an answer
// holds it until its end.
var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 2<<10) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4<<10) }}
)

// exchange sends a request and reads the head of the answer. heard: the node has said something, or the body of the request was
// begun. Where it fails, the connection is closed.
func (c *nodeConn) exchange(r *http.Request) (response *http.Response, heard bool, err error) {
	x := &exchange{conn: c, request: r, sent: make(chan error, 1)}
	// Whoever gives up ends the connection, and with it whatever waits for it.
	x.stop = context.AfterFunc(r.Context(), func() { _ = c.Close() })
	c.left = maxAnswer
	if hasBody(r) {
		heard = true
		go func() { x.sent <- x.send() }() // the client may go on while the node answers; the end of either ends it
	} else if err := x.send(); err != nil {
		return nil, false, x.fail(err)
	} else {
		x.sent <- nil
	}
	x.in = readers.Get().(*bufio.Reader)
	x.in.Reset(c)
	for range maxInterim + 1 {
		response, err = http.ReadResponse(x.in, r)
		if err != nil {
			return nil, heard || c.left < maxAnswer, x.fail(err)
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			c.left = math.MaxInt64
			x.answered(response)
			return response, true, nil
		}
		if t := httptrace.ContextClientTrace(r.Context()); t != nil && t.Got1xxResponse != nil {
			if err := t.Got1xxResponse(response.StatusCode, textproto.MIMEHeader(response.Header)); err != nil {
				return nil, true, x.fail(err)
			}
		}
	}
	return nil, true, x.fail(errors.New("the node says over and over that it will answer"))
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// exchange is a request and its answer on their way.
type exchange struct {
	conn    *nodeConn
	request *http.Request
	in      *bufio.Reader
	sent    chan error
	stop    func() bool
	once    sync.Once
}

// send writes the request, and closes its body.
func (x *exchange) send() error {
	out := writers.Get().(*bufio.Writer)
	out.Reset(x.conn.Conn)
	err := x.request.Write(out)
	if err == nil {
		err = out.Flush()
	}
	out.Reset(nil)
	writers.Put(out)
	if err != nil {
		return fmt.Errorf("send the request: %w", err)
	}
	return nil
}

// fail ends the connection. What failed first is what counts.
func (x *exchange) fail(err error) error {
	x.end(false)
	select {
	case sent := <-x.sent:
		if sent != nil {
			err = sent
		}
	default:
	}
	if gone := x.request.Context().Err(); gone != nil {
		return gone
	}
	return err
}

// end gives the connection back, or closes it.
func (x *exchange) end(whole bool) {
	x.once.Do(func() {
		whole = x.stop() && whole
		whole = whole && x.sentAll()
		if x.in != nil {
			whole = whole && x.in.Buffered() == 0
			x.in.Reset(nil)
			readers.Put(x.in)
		}
		if whole {
			x.conn.pools.keep(x.conn)
		} else {
			_ = x.conn.Close() // nothing more is wanted of it
		}
	})
}

// sentAll says whether the request was sent whole. A node may answer before it has heard all, and before the goroutine that
// sends has said so.
func (x *exchange) sentAll() bool {
	select {
	case err := <-x.sent:
		return err == nil
	default:
	}
	enough := time.NewTimer(sentWait)
	defer enough.Stop()
	select {
	case err := <-x.sent:
		return err == nil
	case <-enough.C:
		return false
	}
}

// answered gives an answer the body that ends the exchange.
func (x *exchange) answered(r *http.Response) {
	again := !r.Close && !x.request.Close
	switch {
	case r.StatusCode == http.StatusSwitchingProtocols:
		r.Body = &switched{x}
	case r.Body == http.NoBody:
		x.end(again)
	default:
		r.Body = &answerBody{ReadCloser: r.Body, x: x, again: again, to: destinationOf(x.request.Context()).answer}
	}
}

// switched is a connection that speaks another protocol from now on.
type switched struct{ x *exchange }

// Read implements io.Reader.
func (s *switched) Read(p []byte) (int, error) { return s.x.in.Read(p) }

// Write implements io.Writer.
func (s *switched) Write(p []byte) (int, error) { return s.x.conn.Conn.Write(p) }

// Close implements io.Closer. Somebody may still read, so the reader is not given back.
func (s *switched) Close() error {
	s.x.once.Do(func() { s.x.stop() })
	return s.x.conn.Close()
}
