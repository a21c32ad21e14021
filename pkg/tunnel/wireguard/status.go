package wireguard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/pkg/tunnel/link"
)

// Status reports the peers of the last Apply, sorted by node; before the first Apply there are none.
func (d *Driver) Status(ctx context.Context) ([]tunnel.PeerStatus, error) {
	if len(d.wanted)+len(d.refused) == 0 {
		return nil, nil
	}
	have, err := d.read(ctx)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var all []tunnel.PeerStatus
	for _, p := range d.wanted {
		all = append(all, statusOf(p, have, d.opts.Device, time.Now()))
	}
	for _, r := range d.refused {
		all = append(all, tunnel.PeerStatus{Node: r.node, State: tunnel.StateDown, Message: r.err.Error()})
	}
	slices.SortStableFunc(all, func(a, b tunnel.PeerStatus) int { return cmp.Compare(a.Node, b.Node) })
	return all, nil
}

// read returns the device as it is, or an error that is os.ErrNotExist where there is none.
func (d *Driver) read(ctx context.Context) (*wgtypes.Device, error) {
	l, err := link.Find(d.opts.Device)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, os.ErrNotExist
	}
	if l.Type() == userspaceDevice {
		if err := answers(ctx, d.opts.Device); errors.Is(err, errNoProcess) {
			return nil, os.ErrNotExist
		} else if err != nil {
			return nil, err
		}
	}
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open WireGuard's control interface: %w", err)
	}
	defer client.Close()
	have, err := client.Device(d.opts.Device)
	if err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", d.opts.Device, err)
	}
	return have, nil
}

func statusOf(p peer, have *wgtypes.Device, device string, now time.Time) tunnel.PeerStatus {
	s := tunnel.PeerStatus{Node: p.node, State: tunnel.StateDown}
	if have == nil {
		s.Message = fmt.Sprintf("the device %s is gone, and is made again in the next pass", device)
		return s
	}
	i := slices.IndexFunc(have.Peers, func(h wgtypes.Peer) bool { return h.PublicKey == p.key })
	if i < 0 {
		s.Message = fmt.Sprintf("the device %s does not have this peer, and gets it in the next pass", device)
		return s
	}
	h := have.Peers[i]
	if h.Endpoint != nil {
		s.Endpoint = unmapped(h.Endpoint.AddrPort())
	}
	s.LastHandshake = h.LastHandshakeTime
	s.RxBytes, s.TxBytes = uint64(h.ReceiveBytes), uint64(h.TransmitBytes)
	switch age := now.Sub(h.LastHandshakeTime); {
	case have.ListenPort == 0:
		s.Message = fmt.Sprintf("the device %s has no UDP port", device)
	case h.LastHandshakeTime.IsZero() && h.Endpoint == nil:
		s.State = tunnel.StateConnecting
		s.Message = fmt.Sprintf("no handshake yet: this node waits on UDP port %d for the peer to dial it", have.ListenPort)
	case h.LastHandshakeTime.IsZero():
		s.State = tunnel.StateConnecting
		s.Message = fmt.Sprintf("no handshake yet: dialled %s from UDP port %d, sent %d bytes, received %d; see that UDP gets "+
			"there and that the peer knows this node's public key", s.Endpoint, have.ListenPort, s.TxBytes, s.RxBytes)
	case age >= rejectAfterTime:
		s.State = tunnel.StateConnecting
		s.Message = fmt.Sprintf("last handshake %v ago with %s: no traffic since, or the peer has become unreachable",
			age.Round(time.Second), s.Endpoint)
	default:
		s.State = tunnel.StateUp
	}
	return s
}
