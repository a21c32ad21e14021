package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DatagramProber asks an Echo by UDP at a steady rate, in one flow, and keeps account of the answers.
type DatagramProber struct {
	conn     net.Conn
	cancel   context.CancelFunc
	all      sync.WaitGroup
	mu       sync.Mutex
	sent     int
	answered map[int]bool
	last     int // highest number answered
}

// ProbeDatagrams begins to send one datagram per interval to the Echo of an address. The first answer has come when it
// returns.
func (h *Host) ProbeDatagrams(ctx context.Context, to netip.Addr, every time.Duration) (*DatagramProber, error) {
	c, err := h.Dial(ctx, "udp", netip.Addr{}, netip.AddrPortFrom(to, EchoPort))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &DatagramProber{conn: c, cancel: cancel, answered: map[int]bool{}, last: -1}
	p.all.Go(p.receive)
	p.all.Go(func() { p.send(ctx, every) })
	if err := p.AwaitAnswers(ctx, 1); err != nil {
		_, _, stopErr := p.Stop(ctx)
		return nil, errors.Join(fmt.Errorf("ask %s from %s: %w", to, h.Name, err), stopErr)
	}
	return p, nil
}

func (p *DatagramProber) send(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		p.mu.Lock()
		n := p.sent
		p.sent++
		p.mu.Unlock()
		// A refusal, such as an ICMP error for an earlier datagram, means one without an answer.
		_, _ = fmt.Fprintf(p.conn, "%d\n", n)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (p *DatagramProber) receive() {
	buf := make([]byte, 256)
	for {
		n, err := p.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for a datagram
		}
		_, number, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
		seq, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		p.mu.Lock()
		p.answered[seq] = true
		p.last = max(p.last, seq)
		p.mu.Unlock()
	}
}

// AwaitAnswers waits until n datagrams, sent from now on, were answered.
func (p *DatagramProber) AwaitAnswers(ctx context.Context, n int) error {
	p.mu.Lock()
	from := p.sent
	p.mu.Unlock()
	return Await(ctx, fmt.Sprintf("%d answers", n), func(context.Context) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		got := 0
		for seq := from; seq <= p.last; seq++ {
			if p.answered[seq] {
				got++
			}
		}
		if got < n {
			return fmt.Errorf("%d came", got)
		}
		return nil
	})
}

// Account is how many datagrams were sent so far, up to the last that was answered, and how many of them were not.
func (p *DatagramProber) Account() (sent, lost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last + 1, p.last + 1 - len(p.answered)
}

// Stop sends no more and returns the account.
func (p *DatagramProber) Stop(ctx context.Context) (sent, lost int, err error) {
	if ctx.Err() == nil {
		err = p.AwaitAnswers(ctx, 1)
	}
	sent, lost = p.Account()
	p.cancel()
	err = errors.Join(err, p.conn.Close())
	p.all.Wait()
	return sent, lost, err
}
