package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Prober sends ICMP echo requests at a steady rate and keeps account of each answer.
type Prober struct {
	conn    net.PacketConn
	to      netip.Addr
	id      int
	every   time.Duration
	cancel  context.CancelFunc
	sending sync.WaitGroup
	reading sync.WaitGroup
	mu      sync.Mutex
	sent    []time.Time
	got     map[int]time.Time
	changed chan struct{}
	err     error
}

// ProbeResult is a prober's account.
type ProbeResult struct {
	Sent, Received int
	// Lost are the sequence numbers without an answer.
	Lost []int
	// Gap is the longest time in which no answer came, and Since when it began.
	Gap   time.Duration
	Since time.Time
	// Slowest is the longest time that an answer took.
	Slowest time.Duration
}

func (r ProbeResult) String() string {
	return fmt.Sprintf("%d sent, %d received, %d lost, longest silence %s from %s, slowest answer after %s", r.Sent, r.Received,
		len(r.Lost), r.Gap.Round(time.Millisecond), r.Since.UTC().Format("15:04:05.000"), r.Slowest.Round(time.Millisecond))
}

// Probe begins to send one echo request per interval from the host. The first answer has come when it returns.
func (h *Host) Probe(ctx context.Context, to netip.Addr, every time.Duration) (*Prober, error) {
	network, local := "ip4:icmp", "0.0.0.0"
	if to.Is6() {
		network, local = "ip6:ipv6-icmp", "::"
	}
	var conn net.PacketConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenPacket(network, local)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open an ICMP socket on %s: %w", h.Name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &Prober{
		conn: conn, to: to, id: int(time.Now().UnixNano() & 0xffff), every: every, cancel: cancel,
		got: map[int]time.Time{}, changed: make(chan struct{}, 1),
	}
	p.reading.Go(p.receive)
	p.sending.Go(func() { p.send(ctx) })
	if err := p.AwaitAnswers(ctx, 1); err != nil {
		_, stopErr := p.Stop(ctx)
		return nil, errors.Join(fmt.Errorf("ping from %s to %s: %w", h.Name, to, err), stopErr)
	}
	return p, nil
}

func (p *Prober) send(ctx context.Context) {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for {
		var kind icmp.Type = ipv4.ICMPTypeEcho
		if p.to.Is6() {
			kind = ipv6.ICMPTypeEchoRequest
		}
		p.mu.Lock()
		seq := len(p.sent)
		p.sent = append(p.sent, time.Now())
		p.mu.Unlock()
		// The kernel computes an ICMPv6 checksum itself.
		b, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: p.id, Seq: seq & 0xffff, Data: make([]byte, 56)}}).Marshal(nil)
		if err == nil {
			_, err = p.conn.WriteTo(b, &net.IPAddr{IP: p.to.AsSlice()})
		}
		if err != nil {
			p.mu.Lock()
			p.err = fmt.Errorf("send echo request %d: %w", seq, err) // it counts as lost; the reason goes with the result
			p.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (p *Prober) receive() {
	buf := make([]byte, 1<<16)
	protocol := ICMP
	if p.to.Is6() {
		protocol = ICMPv6
	}
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply {
			continue
		}
		echo, ok := m.Body.(*icmp.Echo)
		if !ok || echo.ID != p.id {
			continue
		}
		p.mu.Lock()
		if _, twice := p.got[echo.Seq]; !twice {
			p.got[echo.Seq] = time.Now()
		}
		p.mu.Unlock()
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

// AwaitAnswers waits until n more echo requests, sent from now on, were answered.
func (p *Prober) AwaitAnswers(ctx context.Context, n int) error {
	p.mu.Lock()
	from := len(p.sent)
	p.mu.Unlock()
	for {
		p.mu.Lock()
		answered, sendErr := 0, p.err
		for seq := from; seq < len(p.sent); seq++ {
			if _, ok := p.got[seq]; ok {
				answered++
			}
		}
		p.mu.Unlock()
		if answered >= n {
			return nil
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for %d answers: %w", n, context.Cause(ctx)), sendErr)
		}
	}
}

// LostSoFar is how many requests have no answer though one that was sent 100 ms later has.
func (p *Prober) LostSoFar() (lost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := -1
	for seq := range p.got {
		last = max(last, seq)
	}
	for seq := range last {
		if _, ok := p.got[seq]; !ok && p.sent[last].Sub(p.sent[seq]) > 100*time.Millisecond {
			lost++
		}
	}
	return lost
}

// Stop sends no more, gives the last requests a second to be answered, and returns the account.
func (p *Prober) Stop(ctx context.Context) (ProbeResult, error) {
	p.cancel()
	p.sending.Wait()
	last, done := context.WithTimeout(ctx, time.Second)
	defer done()
	// What is missing after that second counts as lost.
	_ = Await(last, "the last answers", func(context.Context) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.got) < len(p.sent) {
			return errors.New("answers are missing")
		}
		return nil
	})
	err := p.conn.Close()
	p.reading.Wait()
	var r ProbeResult
	var answers []time.Time
	for seq, sent := range p.sent {
		at, ok := p.got[seq]
		if !ok {
			r.Lost = append(r.Lost, seq)
			continue
		}
		answers = append(answers, at)
		r.Slowest = max(r.Slowest, at.Sub(sent))
	}
	slices.SortFunc(answers, time.Time.Compare)
	for i := 1; i < len(answers); i++ {
		if gap := answers[i].Sub(answers[i-1]); gap > r.Gap {
			r.Gap, r.Since = gap, answers[i-1]
		}
	}
	r.Sent, r.Received = len(p.sent), len(p.sent)-len(r.Lost)
	if r.Received == r.Sent {
		p.err = nil
	}
	return r, errors.Join(err, p.err)
}
