package l7

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
)

// What the node's servers serve.
const (
	// pathSmall answers with two bytes.
	pathSmall = "/small"
	// pathEndless sends bytes until the connection ends.
	pathEndless = "/endless"
	// pathIdle begins an answer, and says nothing more.
	pathIdle = "/idle"
)

// server is the node's two servers, HTTP and HTTPS, which do as little as they can: what they cost is in all figures.
type server struct {
	listeners []net.Listener
	group     sync.WaitGroup
	mu        sync.Mutex
	conns     map[net.Conn]bool
	closed    bool
}

func (w *world) serve() (*server, error) {
	own, err := w.keys.read(nodeName)
	if err != nil {
		return nil, err
	}
	s := &server{conns: map[net.Conn]bool{}}
	for port, wrap := range map[int]func(net.Conn) net.Conn{
		plainPort: func(c net.Conn) net.Conn { return c },
		tlsPort: func(c net.Conn) net.Conn {
			return tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*own.Certificate}})
		},
	} {
		l, err := listen(w.lab.Host(nodeName), fmt.Sprintf("%s:%d", w.ip[nodeName], port))
		if err != nil {
			return s, err
		}
		s.listeners = append(s.listeners, l)
		s.group.Go(func() { s.accept(l, wrap) })
	}
	return s, nil
}

func (s *server) accept(l net.Listener, wrap func(net.Conn) net.Conn) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		if s.closed {
			_ = c.Close()
		} else {
			s.conns[c] = true
			s.group.Go(func() {
				s.answer(wrap(c))
				_ = c.Close() // the client has gone
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
			})
		}
		s.mu.Unlock()
	}
}

// answer serves a connection's requests until it ends. A failure is the client's to notice.
func (s *server) answer(c net.Conn) {
	in := bufio.NewReaderSize(c, 4<<10)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		for header := line; len(strings.TrimSpace(header)) > 0; {
			if header, err = in.ReadString('\n'); err != nil {
				return
			}
		}
		switch path := strings.Fields(line)[1]; path {
		case pathSmall:
			_, err = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
		case pathIdle:
			_, err = c.Write([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"))
		case pathEndless:
			_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", int64(1)<<50)
			chunk := make([]byte, 128<<10)
			for err == nil {
				_, err = c.Write(chunk)
			}
		default:
			_, err = c.Write([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
		}
		if err != nil {
			return
		}
	}
}

func (s *server) close() error {
	var err error
	s.mu.Lock()
	s.closed = true
	for _, l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	for c := range s.conns {
		_ = c.Close() // its goroutine ends
	}
	s.mu.Unlock()
	s.group.Wait()
	return err
}
