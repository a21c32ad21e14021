package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// EchoPort is where ServeEcho's answers come from.
const EchoPort = 7

// ServeEcho lets all nodes and pods answer every line (TCP) and every datagram (UDP) that reaches EchoPort with the
// sender's address as they saw it, a space and the line. It ends with the lab; hosts that serve already go on, so that
// it may be called again after a Reboot or AddPod.
func (l *Lab) ServeEcho(ctx context.Context) error {
	for _, name := range l.Hosts() {
		h := l.Host(name)
		if _, err := l.node(h.Node().Name); err != nil || h.echoes {
			continue // a NAT box or the router, or it serves
		}
		if err := h.serveEcho(ctx); err != nil {
			return fmt.Errorf("answer on %s: %w", name, err)
		}
		h.echoes = true
	}
	return nil
}

func (h *Host) serveEcho(ctx context.Context) error {
	l, err := h.Listen(ctx, fmt.Sprintf(":%d", EchoPort))
	if err != nil {
		return err
	}
	u, err := h.ListenUDP(ctx, fmt.Sprintf(":%d", EchoPort))
	if err != nil {
		return errors.Join(err, l.Close())
	}
	life, all := h.lab.life, &h.lab.serving
	all.Go(func() {
		<-life.Done()
		// Both are closed to end the loops below; there is nothing to flush.
		_ = l.Close()
		_ = u.Close()
	})
	all.Go(func() { echoDatagrams(u) })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer context.AfterFunc(life, func() { _ = c.Close() })()
				echoLines(c)
			})
		}
	})
	return nil
}

func echoDatagrams(u *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		// A lost answer is what the asking side looks for.
		_, _ = u.WriteToUDPAddrPort([]byte(from.Addr().Unmap().String()+" "+string(buf[:n])), from)
	}
}

func echoLines(c net.Conn) {
	defer c.Close()
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, from.String()+" "+line); err != nil {
			return
		}
	}
}

// Ask sends a line by tcp or udp to the Echo at an address and returns the address that the question seemed to come
// from. UDP questions are repeated every 200 ms until ctx ends.
func (h *Host) Ask(ctx context.Context, network string, to netip.Addr) (seen netip.Addr, err error) {
	c, err := h.Dial(ctx, network, netip.Addr{}, netip.AddrPortFrom(to, EchoPort))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	seen, _, err = Exchange(ctx, c, "hello")
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s %s -> %s: %w", network, h.Name, to, err)
	}
	return seen, nil
}

// Exchange sends one line over a connection to an Echo, reads the answer, and returns the address that the Echo saw
// and the time that it took.
func Exchange(ctx context.Context, c net.Conn, line string) (seen netip.Addr, took time.Duration, err error) {
	answer := make([]byte, 1<<16)
	_, datagrams := c.(*net.UDPConn)
	began := time.Now()
	for {
		if _, err := io.WriteString(c, line+"\n"); err != nil {
			return seen, 0, fmt.Errorf("send: %w", err)
		}
		if datagrams && ctx.Err() == nil {
			if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				return seen, 0, fmt.Errorf("limit the wait: %w", err)
			}
		}
		n, err := c.Read(answer)
		var timeout net.Error
		if datagrams && errors.As(err, &timeout) && timeout.Timeout() && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return seen, 0, fmt.Errorf("receive: %w", err)
		}
		took = time.Since(began)
		from, back, ok := strings.Cut(string(answer[:n]), " ")
		if seen, err = netip.ParseAddr(from); err != nil || !ok || back != line+"\n" {
			return seen, took, fmt.Errorf("the answer %q is not what was asked", answer[:n])
		}
		return seen, took, nil
	}
}
