package mux

import (
	"errors"
	"fmt"

	"golang.org/x/net/http2"
)

// take does what a frame other than DATA says. An error ends the connection.
func (c *Conn) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		return c.out.post(frame(func(w *http2.Framer) error { return w.WritePing(true, f.Data) }))
	case *http2.WindowUpdateFrame:
		return c.granted(f.StreamID, int(f.Increment))
	case *http2.MetaHeadersFrame:
		return c.opened(f)
	case *http2.RSTStreamFrame:
		if s := c.stream(f.StreamID); s != nil {
			s.wasReset(f.ErrCode)
		}
	case *http2.GoAwayFrame:
		c.goneAway(f)
	case *http2.PushPromiseFrame:
		return errors.New("the peer pushes")
	}
	return nil // priorities, and what is not known
}

func (c *Conn) stream(id uint32) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[id]
}

func (c *Conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c.mu.Lock()
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			for _, of := range c.streams {
				of.room += int(s.Val) - c.peerWindow
				of.cond.Broadcast()
			}
			c.peerWindow = int(s.Val)
		case http2.SettingMaxFrameSize:
			c.peerFrame = int(s.Val)
		case http2.SettingMaxConcurrentStreams:
			c.peerStreams = int(s.Val)
		}
		return nil
	})
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("read the peer's settings: %w", err)
	}
	return c.out.post(frame(func(w *http2.Framer) error { return w.WriteSettingsAck() }))
}

// maxWindow of a stream or connection (RFC 9113, section 6.9.1).
const maxWindow = 1<<31 - 1

// granted adds what the peer allows to be sent to it.
func (c *Conn) granted(id uint32, n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		if c.room += n; c.room > maxWindow {
			return errors.New("the peer's window overflows")
		}
		if c.room-n <= 0 {
			for _, s := range c.streams {
				s.cond.Broadcast()
			}
		}
		return nil
	}
	if s := c.streams[id]; s != nil {
		s.room += n // one stream's overflow is its own loss, and ours to no harm
		s.cond.Broadcast()
	}
	return nil
}

// data takes a frame of DATA.
func (c *Conn) data(h http2.FrameHeader, payload []byte) error {
	whole := len(payload)
	if h.Flags.Has(http2.FlagDataPadded) {
		if whole == 0 || int(payload[0]) >= whole {
			return errors.New("a frame is padded by more than it holds")
		}
		payload = payload[1 : whole-int(payload[0])]
	}
	c.mu.Lock()
	c.left -= whole
	if c.left < 0 {
		c.mu.Unlock()
		return errors.New("the peer sends more than the connection's window")
	}
	s := c.streams[h.StreamID]
	if s == nil {
		known := h.StreamID != 0 && h.StreamID%2 == 1 && (c.client() && h.StreamID < c.next || !c.client() && h.StreamID <= c.last)
		known = known || c.ending
		update := c.tookLocked(whole)
		c.mu.Unlock()
		if !known {
			return fmt.Errorf("the peer sends data on stream %d, which nobody has opened", h.StreamID)
		}
		return c.tell(update)
	}
	s.left -= whole
	if s.left < 0 {
		c.mu.Unlock()
		return fmt.Errorf("the peer sends more than the window of stream %d", h.StreamID)
	}
	return s.arrived(payload, whole-len(payload), h.Flags.Has(http2.FlagDataEndStream)) // unlocks
}

// tell posts window updates.
func (c *Conn) tell(update []byte) error {
	if len(update) == 0 {
		return nil
	}
	return c.out.post(update)
}

// tookLocked notes that bytes of the connection's window were taken, and returns what to tell the peer. Call it under the
// mutex.
func (c *Conn) tookLocked(n int) []byte {
	if c.taken += n; c.taken < c.ConnectionWindow/8 {
		return nil
	}
	n = c.taken
	c.left, c.taken = c.left+n, 0
	return windowUpdate(0, n)
}

func windowUpdate(id uint32, n int) []byte {
	return []byte{0, 0, 4, byte(http2.FrameWindowUpdate), 0, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id),
		byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// putHeader writes the header of a frame of DATA in front of its payload.
func putHeader(b []byte, n int, end bool, id uint32) {
	_ = b[headerBytes-1]
	b[0], b[1], b[2], b[3], b[4] = byte(n>>16), byte(n>>8), byte(n), byte(http2.FrameData), 0
	if end {
		b[4] = byte(http2.FlagDataEndStream)
	}
	b[5], b[6], b[7], b[8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
}

// opened takes the headers of a new stream, of an answer, or what comes behind all data.
func (c *Conn) opened(f *http2.MetaHeadersFrame) error {
	if f.Truncated {
		c.refuse(f.StreamID, http2.ErrCodeEnhanceYourCalm)
		return nil
	}
	c.mu.Lock()
	s := c.streams[f.StreamID]
	switch {
	case s != nil:
		c.mu.Unlock()
		s.gotHeaders(f)
		return nil
	case c.client():
		c.mu.Unlock()
		return nil // of a stream that was given up
	case f.StreamID%2 == 0 || f.StreamID <= c.last && !c.ending:
		known := f.StreamID%2 == 1
		c.mu.Unlock()
		if known {
			return nil // what comes behind the data of a stream that is over
		}
		return fmt.Errorf("the peer opens stream %d", f.StreamID)
	case c.ending:
		c.mu.Unlock()
		return nil // it was told that nobody looks at this
	}
	c.last = f.StreamID
	if len(c.streams) >= c.MaxStreams {
		c.mu.Unlock()
		c.refuse(f.StreamID, http2.ErrCodeRefusedStream)
		return nil
	}
	s = c.newStream(f.StreamID)
	s.setRequest(f)
	s.ended = f.StreamEnded()
	c.mu.Unlock()
	c.group.Go(func() {
		defer s.Close()
		c.Serve(s)
	})
	return nil
}

// refuse resets a stream that need not be known.
func (c *Conn) refuse(id uint32, code http2.ErrCode) {
	if s := c.stream(id); s != nil {
		s.reset(code)
		return
	}
	_ = c.out.post(frame(func(w *http2.Framer) error { return w.WriteRSTStream(id, code) })) // reading tells of the end
}

// goneAway: the peer takes no new streams, and has not looked at those behind a number.
func (c *Conn) goneAway(f *http2.GoAwayFrame) {
	c.mu.Lock()
	c.parting = true
	var lost []*Stream
	for id, s := range c.streams {
		if c.client() && id > f.LastStreamID {
			lost = append(lost, s)
		}
	}
	c.checkIdle()
	c.mu.Unlock()
	for _, s := range lost {
		s.fail(ErrNotTaken)
	}
}
