// Package ping measures round trips by ICMP echo. It needs CAP_NET_RAW.
package ping

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Once sends one echo request and waits for its answer until ctx is done.
func Once(ctx context.Context, to netip.Addr) (time.Duration, error) {
	network, listen, request, reply, protocol := "ip4:icmp", "0.0.0.0", icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply), 1
	if to.Is6() {
		network, listen, request, reply, protocol = "ip6:ipv6-icmp", "::", ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	c, err := icmp.ListenPacket(network, listen)
	if err != nil {
		return 0, fmt.Errorf("open a socket for ICMP: %w", err)
	}
	defer c.Close()
	// The reader below must end with ctx, also where it ended before.
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	// The answer is known by its content: the identifier may be another socket's, too.
	mark := make([]byte, 16)
	if _, err := rand.Read(mark); err != nil {
		return 0, fmt.Errorf("mark an echo request: %w", err)
	}
	echo := &icmp.Echo{ID: int(binary.BigEndian.Uint16(mark)), Seq: 1, Data: mark}
	packet, err := (&icmp.Message{Type: request, Body: echo}).Marshal(nil)
	if err != nil {
		return 0, fmt.Errorf("make an echo request: %w", err)
	}
	began := time.Now()
	if _, err := c.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, fmt.Errorf("send an echo request to %s: %w", to, err)
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(buf)
		if ctx.Err() != nil {
			return 0, fmt.Errorf("no answer from %s within %s", to, time.Since(began).Round(time.Millisecond))
		}
		if err != nil {
			return 0, fmt.Errorf("wait for the answer of %s: %w", to, err)
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil || m.Type != reply {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && string(e.Data) == string(mark) {
			return time.Since(began), nil
		}
	}
}
