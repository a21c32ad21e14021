package ipsec

import (
	"context"
	"net/netip"
)

// carrier is the side of a session that carries packets: it says where charon lives, and what encrypts.
type carrier interface {
	// do runs f where charon has to be started from.
	do(f func() error) error
	// config is charon's configuration, with the path of its VICI socket.
	config(socket string) string
	// ready is called as soon as charon answers, which is process pid.
	ready(pid int) error
	// prepare makes what the connections of want need, and returns the number of writes; the peers that it names cannot be
	// had, for the reasons in the error.
	prepare(ctx context.Context, want *Desired) (changes int, without map[string]bool, err error)
	// withdraw takes away what no connection needs any more, once charon has let go of it.
	withdraw(want *Desired) (changes int, err error)
	// settled is called while a peer's newest tunnel has stood for a while.
	settled(peer string) error
	// terms are what connections depend on.
	terms() terms
	// close ends it after charon has ended. With remove nothing stays that packets could go by; without, what the kernel
	// holds waits for the next session.
	close(remove bool) error
}

// terms are what a carrier demands of connections.
type terms struct {
	// local are charon's addresses; none: whichever the host has.
	local []netip.Addr
	// port is charon's UDP port.
	port int
	// number of a peer's XFRM interface, which is also the if_id of all that belongs to it. Nil: there are none, and the
	// peer's prefixes are the selectors.
	number func(peer string) uint32
}

// selectors are what may come from a peer: anything, where an interface of its own tells it from others.
func (t terms) selectors(p DesiredPeer) []string {
	if t.number != nil {
		return []string{"0.0.0.0/0", "::/0"}
	}
	return p.selectors()
}
