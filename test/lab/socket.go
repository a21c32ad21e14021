package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// Dial opens a connection from the host; network is tcp or udp. An invalid from leaves the source to the kernel.
func (h *Host) Dial(ctx context.Context, network string, from netip.Addr, to netip.AddrPort) (c net.Conn, err error) {
	var d net.Dialer
	if from.IsValid() {
		if network == "tcp" {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		} else {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
	}
	err = h.Do(func() error {
		c, err = d.DialContext(ctx, network, to.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h.Name, err)
	}
	return c, nil
}

// Listen opens a TCP listener on the host; an address such as :7 serves both families.
func (h *Host) Listen(ctx context.Context, address string) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h.Name, err)
	}
	return l, nil
}

// ListenUDP opens a UDP socket on the host.
func (h *Host) ListenUDP(ctx context.Context, address string) (c *net.UDPConn, err error) {
	err = h.Do(func() error {
		p, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", address)
		if err == nil {
			c = p.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h.Name, err)
	}
	return c, nil
}
