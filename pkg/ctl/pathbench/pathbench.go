// Package pathbench measures the way between two nodes of a live cluster: round trips of one byte, and what one TCP stream
// carries. One node serves, for one client that knows a secret, and only for as long as it is asked to.
package pathbench

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/ctl/table"
)

// Modes, the byte that a client sends behind the secret.
const (
	modeEcho = 'e' // each byte comes back
	modeSink = 's' // bytes are counted; at their end the number comes back, in eight bytes
)

// chunk is written at once: large enough that calls of the kernel cost little beside the copying.
const chunk = 128 << 10

// Result of a measurement.
type Result struct {
	// From and To are nodes, Address where the second one was reached.
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Address string `json:"address"`
	// RoundTrips is how many were made; their times are in microseconds.
	RoundTrips int     `json:"roundTrips"`
	P50        float64 `json:"rttP50us"`
	P99        float64 `json:"rttP99us"`
	// Bytes that one stream carried in Seconds.
	Bytes   uint64  `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// GbitPerSecond of the stream.
func (r Result) GbitPerSecond() float64 {
	if r.Seconds == 0 {
		return 0
	}
	return float64(r.Bytes) * 8 / r.Seconds / 1e9
}

// Serve answers clients that know the secret until ctx is done, and then waits for what it has begun.
func Serve(ctx context.Context, l net.Listener, secret string) error {
	var group sync.WaitGroup
	defer group.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // nothing is lost
	defer stop()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a measurement: %w", err)
		}
		group.Go(func() {
			end := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer end()
			defer c.Close()
			_ = answer(c, secret) // a client that has gone has seen why
		})
	}
}

// handshakeLimit is how long a client may take to say the secret.
const handshakeLimit = 10 * time.Second

func answer(c net.Conn, secret string) error {
	if err := c.SetReadDeadline(time.Now().Add(handshakeLimit)); err != nil {
		return err
	}
	said := make([]byte, len(secret)+1)
	if _, err := io.ReadFull(c, said); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(said[:len(secret)], []byte(secret)) != 1 {
		return errors.New("a stranger")
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	switch said[len(secret)] {
	case modeEcho:
		_, err := io.Copy(c, c)
		return err
	case modeSink:
		n, err := io.Copy(io.Discard, c)
		if err != nil {
			return err
		}
		_, err = c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
		return err
	}
	return errors.New("an unknown mode")
}

// Ask measures for a time: half of it round trips, half of it throughput.
func Ask(ctx context.Context, address, secret string, length time.Duration) (Result, error) {
	r := Result{Address: address}
	times, err := roundTrips(ctx, address, secret, length/2)
	if err != nil {
		return r, fmt.Errorf("measure round trips to %s: %w", address, err)
	}
	slices.Sort(times)
	micros := func(q float64) float64 {
		return float64(times[min(len(times)-1, int(q*float64(len(times))))].Nanoseconds()) / 1e3
	}
	r.RoundTrips, r.P50, r.P99 = len(times), micros(0.5), micros(0.99)
	if r.Bytes, r.Seconds, err = stream(ctx, address, secret, length/2); err != nil {
		return r, fmt.Errorf("measure a stream to %s: %w", address, err)
	}
	return r, nil
}

func dial(ctx context.Context, address, secret string, mode byte) (*net.TCPConn, error) {
	c, err := (&net.Dialer{Timeout: handshakeLimit}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(append([]byte(secret), mode)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.(*net.TCPConn), nil
}

func roundTrips(ctx context.Context, address, secret string, length time.Duration) ([]time.Duration, error) {
	c, err := dial(ctx, address, secret, modeEcho)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	var times []time.Duration
	b := []byte{0}
	for end := time.Now().Add(length); ; {
		begin := time.Now()
		if !begin.Before(end) && len(times) > 0 {
			return times, nil
		}
		if _, err := c.Write(b); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, fmt.Errorf("no answer (a firewall, or another secret?): %w", err)
		}
		times = append(times, time.Since(begin))
	}
}

func stream(ctx context.Context, address, secret string, length time.Duration) (bytes uint64, seconds float64, err error) {
	c, err := dial(ctx, address, secret, modeSink)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	data := make([]byte, chunk)
	begin := time.Now()
	for time.Since(begin) < length {
		if _, err := c.Write(data); err != nil {
			return 0, 0, err
		}
	}
	if err := c.CloseWrite(); err != nil {
		return 0, 0, err
	}
	var count [8]byte
	if _, err := io.ReadFull(c, count[:]); err != nil {
		return 0, 0, err
	}
	return binary.BigEndian.Uint64(count[:]), time.Since(begin).Seconds(), nil
}

// Write prints a result for people.
func Write(w io.Writer, r Result) error {
	t := table.Table{Heading: []string{"FROM", "TO", "RTT P50", "RTT P99", "ONE TCP STREAM", "ADDRESS"}}
	micros := func(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) + " us" }
	t.Add(r.From, r.To, micros(r.P50), micros(r.P99), strconv.FormatFloat(r.GbitPerSecond(), 'f', 2, 64)+" Gbit/s", r.Address)
	return t.Write(w)
}
