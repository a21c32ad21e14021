package filter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// bufferBytes is what we ask for as the netlink socket's buffers: a batch is sent in one piece, and the kernel answers
// each of its messages.
const bufferBytes = 8 << 20

// dumpBytes is the size of the parts of a listing that the kernel goes up to.
const dumpBytes = 32 << 10

// session is a netlink socket in the network namespace of the calling thread, for one pass.
type session struct {
	*nftables.Conn
	raw *netlink.Conn
	// portID is the socket's address, by which the kernel names the maker of a change.
	portID uint32
	// batchBytes is how large a batch the socket takes.
	batchBytes int
}

// open dials nftables. The port id of the socket is noted, so that the watch can tell our own writes.
func (a *Applier) open(ctx context.Context) (*session, error) {
	s := &session{}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		s.raw = c
		return s.configure(ctx)
	}))
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket for nftables (is the kernel built with nf_tables, and the agent allowed NET_ADMIN?): %w", err)
	}
	s.Conn = conn
	a.own.add(s.portID)
	return s, nil
}

func (s *session) configure(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := s.raw.SetDeadline(deadline); err != nil {
			return fmt.Errorf("set the deadline of the netlink socket: %w", err)
		}
	}
	if err := s.raw.SetReadBuffer(bufferBytes); err != nil {
		return fmt.Errorf("enlarge the netlink socket's receive buffer: %w", err)
	}
	if err := s.raw.SetWriteBuffer(bufferBytes); err != nil {
		return fmt.Errorf("enlarge the netlink socket's send buffer: %w", err)
	}
	rc, err := s.raw.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach the netlink socket: %w", err)
	}
	var size int
	var name unix.Sockaddr
	var sizeErr, nameErr error
	if err := rc.Control(func(fd uintptr) {
		size, sizeErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
		name, nameErr = unix.Getsockname(int(fd))
	}); err != nil {
		return fmt.Errorf("reach the netlink socket: %w", err)
	}
	if err := errors.Join(sizeErr, nameErr); err != nil {
		return fmt.Errorf("read the netlink socket's buffer size and address: %w", err)
	}
	s.batchBytes = size - 4096 // the kernel refuses a message as large as the buffer
	if nl, ok := name.(*unix.SockaddrNetlink); ok {
		s.portID = nl.Pid
	}
	return nil
}

// generation is a number that grows with every change to the nft ruleset of this network namespace. The answer is read
// with a large buffer, since the kernel dimensions the parts of later listings by it, and starts over at the first
// element of a set for each part.
func (s *session) generation() (uint32, error) {
	if _, err := s.raw.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, 4), // nfgenmsg: any family, version 0
	}); err != nil {
		return 0, fmt.Errorf("ask for the generation of the nft ruleset: %w", err)
	}
	rc, err := s.raw.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("reach the netlink socket: %w", err)
	}
	buf := make([]byte, dumpBytes)
	var n int
	var readErr error
	if err := rc.Read(func(fd uintptr) bool {
		n, _, readErr = unix.Recvfrom(int(fd), buf, 0)
		return !errors.Is(readErr, unix.EAGAIN)
	}); err != nil {
		readErr = err
	}
	var m netlink.Message
	if readErr == nil {
		readErr = m.UnmarshalBinary(buf[:n])
	}
	if readErr != nil {
		return 0, fmt.Errorf("read the generation of the nft ruleset: %w", readErr)
	}
	if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN && len(m.Data) >= 4 {
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, fmt.Errorf("decode the generation of the nft ruleset: %w", err)
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), nil
			}
		}
	}
	return 0, fmt.Errorf("the kernel's answer (type %#x) holds no generation of the nft ruleset", m.Header.Type)
}

// consistently runs read until no one changed the ruleset meanwhile: a listing takes several requests, and a change in
// between would look like damage. On a host whose ruleset never rests the last reading has to do.
func (s *session) consistently(ctx context.Context, read func() error) error {
	before, err := s.generation()
	if err != nil {
		return err
	}
	for range 5 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list the nft ruleset: %w", err)
		}
		if err := read(); err != nil {
			return err
		}
		after, err := s.generation()
		if err != nil || after == before {
			return err
		}
		before = after
	}
	return nil
}

// portIDs remembers the netlink port ids of our latest sockets.
type portIDs struct {
	mu   sync.Mutex
	ids  [64]uint32
	next int
}

func (p *portIDs) add(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids[p.next%len(p.ids)] = id
	p.next++
}

func (p *portIDs) has(id uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, have := range p.ids {
		if have == id && id != 0 {
			return true
		}
	}
	return false
}
