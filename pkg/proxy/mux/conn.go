// Package mux carries streams of bytes over one connection by HTTP/2 (RFC 9113), for reverse tunnels. It speaks with any
// HTTP/2 peer; net/http's own engine is not used since each of its hand-overs between goroutines costs a stream's peers
// some ten microseconds. docs/design/proxy.md has more of why.
//
// What arrives for a stream is written to its socket by the goroutine that reads the connection, as far as the socket takes
// it without waiting; what a socket has to say is written to the connection by the goroutine that read it. So a stream is
// one goroutine, and a message passes without a change of goroutines.
package mux

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	headerBytes = 9 // of a frame
	// usualWindow and usualFrame are what a peer has said that has said nothing (RFC 9113, sections 6.5.2 and 6.9.2).
	usualWindow, usualFrame = 65_535, 16 << 10
	// record is the most that one record of TLS carries: a frame that ends with its last byte costs no further one.
	record = 16 << 10
	// chunk is a frame of as many records as pay, header included.
	chunk = 2 * record
	// farewell is how long a peer may take to close a connection on which no stream is left.
	farewell = time.Second
	// readBuffer takes frames' headers and small frames; what is larger is read to where it belongs.
	readBuffer = 4 << 10
)

// Errors of streams; errors.Is tells.
var (
	// ErrReset: the peer, or this side, has cut the stream off.
	ErrReset = errors.New("the stream was reset")
	// ErrNotTaken: the peer takes no new streams, and has done nothing with this one.
	ErrNotTaken = errors.New("the peer takes no new streams")
	// ErrSilent: the peer has not answered a ping.
	ErrSilent = errors.New("the peer has said nothing, not even to a ping")
)

// Config of a connection.
type Config struct {
	// Serve answers a stream of the peer's in a goroutine of its own; the stream ends when it returns. Nil: this side opens
	// the streams.
	Serve func(*Stream)
	// StreamWindow and ConnectionWindow are what the peer may send ahead of what was taken.
	StreamWindow, ConnectionWindow int
	// MaxFrame is the largest frame that the peer may send, MaxStreams how many streams it may have open, MaxHeader bounds the
	// headers of each.
	MaxFrame, MaxStreams, MaxHeader int
	// Silence is how long nothing may be heard before a ping is sent, and how long the answer may take.
	Silence time.Duration
	// Stuck is how long the peer may take no bytes.
	Stuck time.Duration
}

// Conn is one connection.
type Conn struct {
	Config
	conn   net.Conn
	out    *writer
	closed chan struct{} // when nothing more is read
	group  sync.WaitGroup
	heard  atomic.Int64 // when bytes came last, in nanoseconds since begin
	begin  time.Time
	watch  *time.Timer

	// headers is held from the choice of a stream's number until its headers are queued, since numbers must arrive in order.
	headers sync.Mutex
	fields  *hpack.Encoder
	block   bytes.Buffer

	mu      sync.Mutex
	streams map[uint32]*Stream
	// next is the number of the next stream that this side opens, last the largest that the peer has opened.
	next, last uint32
	// What the peer allows.
	peerWindow, peerFrame, peerStreams int
	room                               int // that the peer grants to all streams together
	// taken of the connection's window, and not told yet; left of it.
	taken, left int
	// parting: the peer takes no new streams; ending: this side takes none.
	parting, ending bool
	idle            chan struct{} // closed once ending and without streams
	leaving         bool          // it is being closed, since the peer was parting and there is no stream
	err             error
}

// Client begins HTTP/2 as the side that opens streams.
func Client(c net.Conn, config Config) *Conn { return start(c, config, 1) }

// Server begins HTTP/2 as the side that config.Serve answers for.
func Server(c net.Conn, config Config) *Conn { return start(c, config, 2) }

func start(raw net.Conn, config Config, first uint32) *Conn {
	c := &Conn{
		Config: config, conn: raw, out: newWriter(raw, config.Stuck), closed: make(chan struct{}), begin: time.Now(),
		streams: map[uint32]*Stream{}, next: first, idle: make(chan struct{}),
		peerWindow: usualWindow, peerFrame: usualFrame, peerStreams: 100, room: usualWindow, left: config.ConnectionWindow,
	}
	c.fields = hpack.NewEncoder(&c.block)
	c.fields.SetMaxDynamicTableSizeLimit(0) // stateless
	var hello bytes.Buffer
	if c.client() {
		hello.WriteString(http2.ClientPreface)
	}
	f := http2.NewFramer(&hello, nil)
	settings := []http2.Setting{
		{ID: http2.SettingInitialWindowSize, Val: uint32(config.StreamWindow)}, {ID: http2.SettingMaxFrameSize, Val: uint32(config.MaxFrame)},
		{ID: http2.SettingMaxHeaderListSize, Val: uint32(config.MaxHeader)},
	}
	if c.client() {
		settings = append(settings, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	} else {
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(config.MaxStreams)})
	}
	// Writing to a buffer does not fail.
	_ = f.WriteSettings(settings...)
	_ = f.WriteWindowUpdate(0, uint32(config.ConnectionWindow-usualWindow))
	_ = c.out.post(hello.Bytes()) // to a queue that is empty; before anybody opens a stream
	c.watch = time.AfterFunc(config.Silence, c.listen)
	c.group.Go(func() { c.out.run(c.closed) })
	c.group.Go(func() { c.fail(c.read()) })
	return c
}

func (c *Conn) client() bool { return c.Serve == nil }

// Done is closed once the connection has ended, and with it all streams.
func (c *Conn) Done() <-chan struct{} { return c.closed }

// Err says why the connection has ended; nil: it has not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Parting says whether the peer has said that it takes no new streams.
func (c *Conn) Parting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parting
}

// Available says whether a stream can be opened.
func (c *Conn) Available() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && !c.parting && len(c.streams) < c.peerStreams
}

// Close ends the connection, and waits for all that belongs to it, what Serve runs included.
func (c *Conn) Close() {
	_ = c.conn.Close() // whatever it says, it is closed
	<-c.closed
	c.group.Wait()
}

// Shutdown takes no new streams and returns once there is none, or ctx is done, which it reports. Close comes after it.
func (c *Conn) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	var goaway []byte
	if !c.ending {
		c.ending = true
		goaway = frame(func(f *http2.Framer) error { return f.WriteGoAway(c.last, http2.ErrCodeNo, nil) })
		c.checkIdle()
	}
	c.mu.Unlock()
	if goaway != nil {
		_ = c.out.write(goaway, nil) // where that fails, the connection ends
	}
	select {
	case <-c.idle:
	case <-c.closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	c.out.drained()
	// The peer closes once it has heard all. Were it this side that closes, under something that the peer says meanwhile, then
	// the kernel would drop what is still on its way to the peer.
	enough := time.NewTimer(farewell)
	defer enough.Stop()
	select {
	case <-c.closed:
	case <-enough.C:
	case <-ctx.Done():
	}
	return nil
}

// checkIdle notes that the last stream has ended. Call it under the mutex.
func (c *Conn) checkIdle() {
	if len(c.streams) > 0 {
		return
	}
	if c.ending {
		select {
		case <-c.idle:
		default:
			close(c.idle)
		}
	}
	if c.parting && c.client() && !c.leaving {
		c.leaving = true
		c.group.Go(func() { _ = c.conn.Close() }) // nothing more will be said
	}
}

// frame is what f writes.
func frame(write func(*http2.Framer) error) []byte {
	var b bytes.Buffer
	_ = write(http2.NewFramer(&b, nil)) // to a buffer, which does not fail
	return b.Bytes()
}

// fail ends the connection and every stream.
func (c *Conn) fail(err error) {
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("the peer has ended the connection: %w", io.ErrUnexpectedEOF)
	}
	c.watch.Stop()
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	err = c.err
	all := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		all = append(all, s)
	}
	c.mu.Unlock()
	_ = c.conn.Close() // nothing is left to say
	c.out.fail(err)
	for _, s := range all {
		s.fail(err)
	}
	close(c.closed)
}

// listen is called when nothing may have been heard for a while.
func (c *Conn) listen() {
	silent := time.Since(c.begin) - time.Duration(c.heard.Load())
	switch {
	case silent >= 2*c.Silence:
		c.mu.Lock()
		if c.err == nil {
			c.err = fmt.Errorf("%w for %v", ErrSilent, silent)
		}
		c.mu.Unlock()
		_ = c.conn.Close() // which ends the reading
	case silent >= c.Silence:
		if c.out.post(frame(func(f *http2.Framer) error { return f.WritePing(false, [8]byte{'r', 'a', 'v', 'e', 'n'}) })) == nil {
			c.watch.Reset(2*c.Silence - silent)
		}
	default:
		c.watch.Reset(c.Silence - silent)
	}
}

// counted notes when bytes are heard.
type counted struct{ c *Conn }

// Read implements io.Reader.
func (r counted) Read(p []byte) (int, error) {
	n, err := r.c.conn.Read(p)
	if n > 0 {
		r.c.heard.Store(int64(time.Since(r.c.begin)))
	}
	return n, err
}

// read reads frames until the connection ends.
func (c *Conn) read() error {
	in := bufio.NewReaderSize(counted{c}, readBuffer)
	if !c.client() {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(in, preface); err != nil {
			return fmt.Errorf("read the preface: %w", err)
		}
		if string(preface) != http2.ClientPreface {
			return errors.New("the peer does not speak HTTP/2")
		}
	}
	f := http2.NewFramer(io.Discard, in)
	f.SetReuseFrames()
	f.SetMaxReadFrameSize(uint32(c.MaxFrame))
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.MaxHeaderListSize = uint32(c.MaxHeader)
	buf := make([]byte, c.MaxFrame)
	for begun := false; ; begun = true {
		h, err := f.ReadFrameHeader()
		if err != nil {
			return fmt.Errorf("read a frame: %w", err)
		}
		if !begun && h.Type != http2.FrameSettings {
			return errors.New("the peer does not begin with its settings")
		}
		if h.Type == http2.FrameData {
			if _, err := io.ReadFull(in, buf[:h.Length]); err != nil {
				return fmt.Errorf("read a frame: %w", err)
			}
			if err := c.data(h, buf[:h.Length]); err != nil {
				return err
			}
			continue
		}
		fr, err := f.ReadFrameForHeader(h)
		if err != nil {
			var of http2.StreamError
			if errors.As(err, &of) {
				c.refuse(of.StreamID, of.Code)
				continue
			}
			return fmt.Errorf("read a frame: %w", err)
		}
		if err := c.take(fr); err != nil {
			return err
		}
	}
}
