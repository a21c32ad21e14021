package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// stream is a client's connection through a path, with HTTP/1.1 on it.
type stream struct {
	net.Conn
	in *bufio.Reader
}

// patience is how long a client waits for a connection or an answer.
const patience = time.Minute

// open connects, and ends in TLS at the node where the front is TLS.
func (w *world) open(ctx context.Context, path, front string) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var c net.Conn
	err := w.client.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp4", w.address(path, front))
		return err
	})
	if err == nil && front == TLS {
		t := tls.Client(c, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: nodeName, RootCAs: w.keys.roots})
		if err = t.HandshakeContext(ctx); err != nil {
			_ = c.Close()
		}
		c = t
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s by %s: %w", nodeName, path, err)
	}
	return &stream{Conn: c, in: bufio.NewReaderSize(c, 64<<10)}, nil
}

// request asks for a path of the node's server.
func request(front, path string) []byte {
	port := plainPort
	if front == TLS {
		port = tlsPort
	}
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s:%d\r\n\r\n", path, nodeName, port)
}

// ask sends a request and reads the answer's head. It returns the length of the body, -1 where that is not known.
func (s *stream) ask(request []byte) (length int64, err error) {
	if _, err := s.Write(request); err != nil {
		return 0, fmt.Errorf("send a request: %w", err)
	}
	length = -1
	for first := true; ; first = false {
		line, err := s.in.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("read an answer: %w", err)
		}
		switch text := strings.TrimSpace(string(line)); {
		case first && !strings.HasPrefix(text, "HTTP/1.1 200"):
			return 0, fmt.Errorf("the answer is %q", text)
		case text == "":
			return length, nil
		case !first:
			name, value, _ := strings.Cut(text, ":")
			if textproto.CanonicalMIMEHeaderKey(name) == "Content-Length" {
				if length, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil {
					return 0, fmt.Errorf("read an answer's length: %w", err)
				}
			}
		}
	}
}

// turn is one small request and its answer.
func (s *stream) turn(request []byte) error {
	length, err := s.ask(request)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, s.in, length); err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	return nil
}
