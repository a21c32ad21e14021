package front

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

const (
	// sip is the buffer of an answer of which nobody can say whether more will come soon.
	sip = 512
	// gulp is that of one that flows, and flowing how much one read must bring for the next one to be given it.
	gulp, flowing = 32 << 10, 4 << 10
)

var gulps = sync.Pool{New: func() any { return new([gulp]byte) }}

// sips are the buffers of httputil.ReverseProxy, which holds one as long as an answer lasts.
type sips struct{}

// Get implements httputil.BufferPool.
func (sips) Get() []byte { return make([]byte, sip) }

// Put implements httputil.BufferPool.
func (sips) Put([]byte) {}

// answerBody is the body of a node's answer.
type answerBody struct {
	io.ReadCloser
	x     *exchange
	again bool  // there may be another exchange
	ended error // what the body has ended with; nil: it has not
	// to is where whoever reads writes to; nil: that is not known.
	to   *countedWriter
	full bool // the last read has filled its buffer
}

// Read implements io.Reader. While much comes, it writes to the client itself, by a larger buffer than it was given, which it
// gives back before it waits for what may never come.
func (b *answerBody) Read(p []byte) (int, error) {
	if b.ended != nil {
		return 0, b.ended
	}
	if b.full && b.to != nil {
		b.full = false
		if err := b.pour(); err != nil {
			return 0, b.end(err)
		}
	}
	n, err := b.ReadCloser.Read(p)
	b.full = n == len(p)
	if err != nil {
		err = b.end(err)
	}
	return n, err
}

// pour copies to the client while much comes.
func (b *answerBody) pour() error {
	buf := gulps.Get().(*[gulp]byte)
	defer gulps.Put(buf)
	control := http.NewResponseController(b.to)
	for {
		n, err := b.ReadCloser.Read(buf[:])
		if n > 0 {
			if _, wrote := b.to.Write(buf[:n]); wrote != nil {
				return wrote
			}
			if flushed := control.Flush(); flushed != nil {
				return flushed
			}
		}
		switch {
		case err != nil:
			return err
		case n < flowing && b.x.in.Buffered() == 0 && b.x.conn.stands(): // there is nothing more at the moment
			return nil
		}
	}
}

func (b *answerBody) end(err error) error {
	b.ended = err
	b.x.end(b.again && errors.Is(err, io.EOF))
	return err
}

// Close implements io.Closer. What was not read is not wanted.
func (b *answerBody) Close() error {
	if b.ended == nil {
		b.ended = http.ErrBodyReadAfterClose
	}
	b.x.end(false)
	return nil
}
