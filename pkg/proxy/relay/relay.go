// Package relay copies bytes between the connections of the L7 proxy. A stream that is idle holds next to no memory, since
// most streams are idle most of the time.
package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// chunk is read at once.
	chunk = 32 << 10
	// sip is read from a stream of which nobody can say whether more will come soon.
	sip = 512
	// flowing is how much one read must bring for the next one to be given a whole chunk.
	flowing = 1 << 10
)

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// FromSocket copies from a socket until its end, and calls wrote after each write with its number of bytes. A socket
// that the kernel has nothing for costs no buffer.
func FromSocket(dst io.Writer, src net.Conn, wrote func(int) error) error {
	sc, ok := src.(syscall.Conn)
	if !ok {
		return FromStream(dst, src, wrote)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return fmt.Errorf("read a socket: %w", err)
	}
	for {
		buf, n, err := readSocket(raw)
		if n > 0 {
			if _, err = dst.Write((*buf)[:n]); err == nil {
				err = wrote(n)
			}
		}
		if buf != nil {
			chunks.Put(buf)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readSocket waits for bytes, and takes a buffer once there are some.
func readSocket(raw syscall.RawConn) (buf *[]byte, n int, err error) {
	var readErr error
	waitErr := raw.Read(func(fd uintptr) bool {
		buf = chunks.Get().(*[]byte)
		for {
			n, readErr = unix.Read(int(fd), *buf)
			if readErr != unix.EINTR {
				break
			}
		}
		if readErr == unix.EAGAIN {
			chunks.Put(buf)
			buf, n, readErr = nil, 0, nil
			return false
		}
		return true
	})
	switch {
	case waitErr != nil:
		return buf, 0, fmt.Errorf("wait for a socket: %w", waitErr)
	case readErr != nil:
		return buf, 0, fmt.Errorf("read a socket: %w", readErr)
	case n == 0:
		return buf, 0, io.EOF
	}
	return buf, n, nil
}

// FromStream copies from what is no socket, such as TLS, until its end, and calls wrote after each write with its number of
// bytes.
func FromStream(dst io.Writer, src io.Reader, wrote func(int) error) error {
	small := make([]byte, sip)
	for {
		n, err := pass(dst, src, small, wrote)
		for err == nil && n >= sip {
			buf := chunks.Get().(*[]byte)
			for n = flowing; err == nil && n >= flowing; {
				n, err = pass(dst, src, *buf, wrote)
			}
			chunks.Put(buf)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// pass reads once and writes what it read.
func pass(dst io.Writer, src io.Reader, buf []byte, wrote func(int) error) (int, error) {
	n, err := src.Read(buf)
	if n > 0 {
		if _, writeErr := dst.Write(buf[:n]); writeErr != nil {
			return n, writeErr
		}
		if told := wrote(n); told != nil {
			return n, told
		}
	}
	return n, err
}

// Abort closes a connection so that the other side sees that something was cut off, and not an end.
func Abort(c net.Conn) {
	inner := c
	for {
		n, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		inner = n.NetConn()
	}
	if l, ok := inner.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // best effort: a connection that is closed already has nothing to reset
	}
	_ = inner.Close()
}

// CloseWrite ends the sending direction, where the connection has one.
func CloseWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
