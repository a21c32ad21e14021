package ipsec

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ESP says what encrypts.
type ESP string

const (
	// ESPAuto is the kernel where it can, and charon where it cannot.
	ESPAuto ESP = "auto"
	// ESPKernel is the kernel's ESP with an XFRM interface for each peer.
	ESPKernel ESP = "kernel"
	// ESPUserspace is charon's own ESP, with one TUN device for all peers.
	ESPUserspace ESP = "userspace"
)

// Check is an error where the value is none of the three; empty counts as ESPAuto.
func (e ESP) Check() error {
	switch e {
	case "", ESPAuto, ESPKernel, ESPUserspace:
		return nil
	}
	return fmt.Errorf("%q is none of %s, %s and %s", string(e), ESPAuto, ESPKernel, ESPUserspace)
}

// resolve chooses what encrypts; reason says why it is not the kernel.
func (e ESP) resolve() (chosen ESP, reason error, err error) {
	switch e {
	case ESPKernel, ESPUserspace:
		return e, nil, nil
	case "", ESPAuto:
		if reason = probeKernel(); reason != nil {
			return ESPUserspace, reason, nil
		}
		return ESPKernel, nil, nil
	}
	return "", nil, fmt.Errorf("choose what encrypts: %w", e.Check())
}

// probeKernel makes an XFRM interface and an encapsulated ESP state of each family, as a tunnel has them, in a network
// namespace that vanishes with them. It is nil where the kernel does all of it, loading its modules where it must.
func probeKernel() error {
	t, err := newThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace to try the kernel's ESP in: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer t.end()
	return t.do(func() error {
		probe := peerInterface{name: "probe", peer: "probe"}
		if err := probe.create(); err != nil {
			return fmt.Errorf("the kernel has no XFRM interfaces (CONFIG_XFRM_INTERFACE): %w", err)
		}
		for _, a := range insideAddresses {
			if err := addProbe(a); err != nil {
				return fmt.Errorf("the kernel has no ESP for %s (CONFIG_INET_ESP, CONFIG_INET6_ESP, CONFIG_CRYPTO_GCM): %w", a, err)
			}
		}
		return nil
	})
}

func addProbe(a netip.Addr) error {
	const keyAndSalt, tagBits = 36, 128 // RFC 4106, section 8.1: 32 and 4 bytes
	state := &netlink.XfrmState{
		Src: net.IP(a.AsSlice()), Dst: net.IP(a.Next().AsSlice()), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
		Spi: 0x1000, Ifid: firstIfID,
		Aead:  &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: make([]byte, keyAndSalt), ICVLen: tagBits},
		Encap: &netlink.XfrmStateEncap{Type: netlink.XFRM_ENCAP_ESPINUDP, SrcPort: natPort, DstPort: natPort, OriginalAddress: net.IPv4zero},
	}
	err := netlink.XfrmStateAdd(state)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOSYS) {
		err = fmt.Errorf("%w: the module is absent", err)
	}
	return err
}
