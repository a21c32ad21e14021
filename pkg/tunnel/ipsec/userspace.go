package ipsec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
)

// userspace carries packets by charon's own ESP: charon sits in an enclave, and a relay leads its packets out.
type userspace struct {
	*enclave
	relay     *relay
	host      int
	device    string
	addresses []netip.Addr
	log       *slog.Logger
	socket    string // charon's, for VICI
	// events is what tells the relay of charon's associations; nil before charon is ready.
	events *events
}

// newUserspace makes charon's device appear as device in the namespace host.
func newUserspace(host int, device string, log *slog.Logger) (*userspace, error) {
	e, err := newEnclave()
	if err != nil {
		return nil, err
	}
	outside := e.outside
	e.outside = -1 // the relay's from here on
	return &userspace{enclave: e, relay: newRelay(outside, log), host: host, device: device, log: log}, nil
}

func (u *userspace) config(socket string) string {
	u.socket = socket
	return fmt.Sprintf(charonConfig, "kernel-libipsec kernel-netlink", 500, natPort, "", socket, "kernel-libipsec {\n      allow_peer_ts = yes\n    }")
}

func (u *userspace) ready(pid int) error {
	if sockets, err := widenAll(pid); err != nil || sockets == 0 {
		u.log.Warn("charon's UDP sockets keep their small buffers, and packets are lost where processors are busy", "sockets", sockets, "error", err)
	}
	var err error
	if u.events, err = listenToEvents(u.socket, u.relay.early, u.log); err != nil {
		return err
	}
	return u.releaseDevice(u.host, u.device)
}

func (u *userspace) prepare(ctx context.Context, want *Desired) (changes int, without map[string]bool, err error) {
	if u.relay.serves() != want.Port {
		if err := u.relay.listen(ctx, want.Port); err != nil {
			return 0, nil, err
		}
		changes++
	}
	if !slices.Equal(u.addresses, want.Addresses) {
		n, err := u.setAddresses(want.Addresses)
		changes += n
		if err != nil {
			return changes, nil, err
		}
		u.addresses = want.Addresses
	}
	return changes, nil, nil
}

func (u *userspace) withdraw(*Desired) (int, error) { return 0, nil }

func (u *userspace) settled(string) error { return nil }

func (u *userspace) terms() terms { return terms{local: insideAddresses, port: natPort} }

func (u *userspace) close(bool) error {
	return errors.Join(u.events.close(), u.relay.close(), u.enclave.close())
}
