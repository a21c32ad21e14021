package ipsec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const (
	// natPort is where charon serves IKE and UDP-encapsulated ESP in its namespace (RFC 3948).
	natPort = 4500
	// largestDatagram in bytes that the relay carries.
	largestDatagram = 65535 - headroom
	// rememberedPeers bounds what strangers can make the relay remember.
	rememberedPeers = 4096
)

// relay carries datagrams between a UDP port of the host and charon in its namespace: what comes from a peer enters as if
// the peer had sent it there, and what charon sends to a peer leaves from the port. So charon sees its peers' addresses.
type relay struct {
	log     *slog.Logger
	outside *os.File
	ended   sync.WaitGroup
	done    chan struct{}
	// early keeps what comes before charon can read it.
	early *early

	mu   sync.RWMutex
	port int
	// sockets by family: IPv4, IPv6; nil where the port is not open.
	sockets [2]*net.UDPConn
	reading sync.WaitGroup
	answers map[netip.AddrPort]answer
}

// answer makes what is sent to a peer leave from the address that the peer knows.
type answer struct {
	// seen is the control message of the last datagram from there, out what to send along.
	seen, out []byte
}

// newRelay serves outside, a non-blocking TUN file, which it takes over.
func newRelay(outside int, log *slog.Logger) *relay {
	r := &relay{
		log: log, outside: os.NewFile(uintptr(outside), outsideDevice), answers: map[netip.AddrPort]answer{}, done: make(chan struct{}),
	}
	r.early = newEarly(func(packet []byte) { _, _ = r.outside.Write(packet) }) // fails where the relay is being closed
	r.ended.Go(r.sendAll)
	r.ended.Go(func() { r.early.watch(r.done) })
	return r
}

// close ends the relay and waits for its goroutines.
func (r *relay) close() error {
	err := errors.Join(r.listen(context.Background(), 0), r.outside.Close())
	close(r.done)
	r.ended.Wait()
	return err
}

// listen moves the relay to another port of the host, 0: to none. Where that fails it stays where it was.
func (r *relay) listen(ctx context.Context, port int) error {
	r.mu.Lock()
	if r.port == port {
		r.mu.Unlock()
		return nil
	}
	var fresh [2]*net.UDPConn
	if port != 0 {
		for i, network := range []string{"udp4", "udp6"} {
			c, err := openPort(ctx, network, port)
			if errors.Is(err, unix.EAFNOSUPPORT) {
				continue // then no packet of this family comes or goes
			}
			if err != nil {
				r.mu.Unlock()
				return errors.Join(err, closeAll(fresh))
			}
			fresh[i] = c
		}
	}
	old := r.sockets
	r.sockets, r.port = fresh, port
	clear(r.answers)
	for i, c := range fresh {
		if c != nil {
			r.reading.Go(func() { r.receiveAll(c, i == 1) })
		}
	}
	r.mu.Unlock()
	err := closeAll(old)
	if port == 0 {
		r.reading.Wait()
	}
	return err
}

func closeAll(sockets [2]*net.UDPConn) error {
	var errs []error
	for _, c := range sockets {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// openPort opens a UDP port that reports which address each datagram came to, and that lets the kernel cut what it sends.
func openPort(ctx context.Context, network string, port int) (*net.UDPConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			if network == "udp4" {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
			}
			err = errors.Join(err, widen(int(fd)))
		})
		return errors.Join(controlErr, err)
	}}
	opened, err := config.ListenPacket(ctx, network, fmt.Sprintf(":%d", port))
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("%w (ss -lunp 'sport = %d' names the program that holds it): end that program, or give this gateway's "+
			"endpoint another port", err, port)
	}
	if err != nil {
		return nil, fmt.Errorf("open UDP port %d for IPsec: %w", port, err)
	}
	c := opened.(*net.UDPConn)
	if network == "udp4" {
		err = ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst, true)
	} else {
		err = ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst, true)
	}
	err = errors.Join(err, c.SetWriteBuffer(socketBuffer))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare UDP port %d for IPsec: %w", port, err), c.Close())
	}
	return c, nil
}

// receiveAll hands the datagrams of c to charon until c is closed.
func (r *relay) receiveAll(c *net.UDPConn, six bool) {
	inside := insideAddresses[0]
	if six {
		inside = insideAddresses[1]
	}
	buffer := make([]byte, headroom+largestDatagram)
	oob := make([]byte, 128)
	for {
		n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buffer[headroom:], oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier datagram
		}
		from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		r.remember(from, oob[:oobn], six)
		number := associationOf(buffer[headroom : headroom+n])
		r.early.take(number, buildUDP(buffer[:headroom+n], from, netip.AddrPortFrom(inside, natPort)))
	}
}

// remember makes answers to a peer leave from the address that it sent to; oob is the control message that came with its
// datagram.
func (r *relay) remember(from netip.AddrPort, oob []byte, six bool) {
	r.mu.RLock()
	same := bytes.Equal(r.answers[from].seen, oob)
	r.mu.RUnlock()
	if same {
		return
	}
	a := answer{seen: bytes.Clone(oob)}
	if six {
		var m ipv6.ControlMessage
		if m.Parse(oob) == nil {
			a.out = (&ipv6.ControlMessage{Src: m.Dst}).Marshal()
		}
	} else {
		var m ipv4.ControlMessage
		if m.Parse(oob) == nil {
			a.out = (&ipv4.ControlMessage{Src: m.Dst}).Marshal()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.answers) >= rememberedPeers {
		clear(r.answers)
	}
	r.answers[from] = a
}

// sendAll sends what charon sends, until the TUN device is closed.
func (r *relay) sendAll() {
	buffer := make([]byte, headroom+largestDatagram)
	for {
		n, err := r.outside.Read(buffer)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				r.log.Error("the relay to charon ends: its device cannot be read", "error", err)
			}
			return
		}
		src, dst, payload, ok := parseUDP(buffer[:n])
		if !ok || src.Port() != natPort {
			continue // neighbour discovery and the like
		}
		r.mu.RLock()
		c, along := r.sockets[0], r.answers[dst].out
		if dst.Addr().Is6() {
			c = r.sockets[1]
		}
		r.mu.RUnlock()
		if c == nil {
			continue
		}
		if _, _, err := c.WriteMsgUDPAddrPort(payload, along, dst); err != nil && along != nil && !errors.Is(err, net.ErrClosed) {
			// The address that the peer knew is no longer ours, or ways have changed.
			r.mu.Lock()
			delete(r.answers, dst)
			r.mu.Unlock()
			_, _ = c.WriteToUDPAddrPort(payload, dst) // charon repeats what gets lost, and ESP may
		}
	}
}

// serves is the port that the relay listens on; 0: none.
func (r *relay) serves() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.port
}
