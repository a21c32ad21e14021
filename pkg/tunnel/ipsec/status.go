package ipsec

import (
	"context"
	"errors"
	"fmt"

	"github.com/ravencni/raven/pkg/tunnel"
)

// Status reports the peers of the last Apply, sorted by node; before the first Apply there are none.
func (d *Driver) Status(ctx context.Context) ([]tunnel.PeerStatus, error) {
	if len(d.wanted) == 0 {
		return nil, nil
	}
	report, err := d.control.report(ctx)
	if err != nil && !errors.Is(err, errNoDaemon) {
		return nil, err
	}
	gone := ""
	switch {
	case err != nil:
		gone = "the IPsec daemon does not run, and is started in the next pass"
	case report.Problem != "" && report.Peers == nil:
		gone = report.Problem
	case report.Problem != "":
		// What was seen last stands: traffic may well go on.
		return nil, fmt.Errorf("look at the tunnels: %s", report.Problem)
	}
	all := make([]tunnel.PeerStatus, 0, len(d.wanted))
	for _, p := range d.wanted {
		if gone != "" {
			all = append(all, tunnel.PeerStatus{Node: p.Node, State: tunnel.StateDown, Message: gone})
			continue
		}
		all = append(all, statusOf(p, report.Peers[p.Node], d.port))
	}
	return all, nil
}

func statusOf(p DesiredPeer, r PeerReport, port int) tunnel.PeerStatus {
	s := tunnel.PeerStatus{
		Node: p.Node, State: tunnel.StateConnecting, Endpoint: r.Endpoint, LastHandshake: r.Established,
		RxBytes: r.RxBytes, TxBytes: r.TxBytes,
	}
	switch {
	case r.Up:
		s.State = tunnel.StateUp
	case r.Cause != "":
		s.Message = r.Cause
		s.State = tunnel.StateDown
	case p.Dial:
		s.Message = fmt.Sprintf("dialling %s", p.Endpoint)
	default:
		s.Message = fmt.Sprintf("this node waits on UDP port %d for the peer to dial it", port)
	}
	return s
}
