package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages and attributes of linux/netfilter/nfnetlink_queue.h, behind NFNL_SUBSYS_QUEUE.
const (
	nfqueuePacket  = unix.NFNL_SUBSYS_QUEUE << 8
	nfqueueVerdict = unix.NFNL_SUBSYS_QUEUE<<8 | 1
	nfqueueConfig  = unix.NFNL_SUBSYS_QUEUE<<8 | 2

	nfqueueCommand, nfqueueParameters        = 1, 2  // of a configuration
	nfqueueHeader, nfqueuePayload            = 1, 10 // of a packet
	nfqueueVerdictHeader                     = 2     // of a verdict
	nfqueueBind, nfqueueCopyPacket           = 1, 2
	nfqueueDrop, nfqueueAccept               = 0, 1
	nfqueueCopied                     uint32 = 128 // bytes of each packet: its headers
)

// JudgePackets has judge say of each packet that a host's rules hand to the queue whether it may pass; it is given the first
// bytes from the IP header on. The caller ends it with stop, which reports what went wrong.
func (h *Host) JudgePackets(ctx context.Context, queue uint16, judge func(packet []byte) bool) (stop func() error, err error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(h.net.Fd())})
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket on %s: %w", h.Name, err)
	}
	parameters := append(binary.BigEndian.AppendUint32(nil, nfqueueCopied), nfqueueCopyPacket)
	for _, a := range []netlink.Attribute{
		{Type: nfqueueCommand, Data: []byte{nfqueueBind, 0, 0, 0}}, {Type: nfqueueParameters, Data: parameters},
	} {
		if err := sendQueue(c, nfqueueConfig, netlink.Acknowledge, queue, a); err != nil {
			return nil, errors.Join(fmt.Errorf("bind queue %d of %s: %w", queue, h.Name, err), c.Close())
		}
		if _, err := c.Receive(); err != nil {
			return nil, errors.Join(fmt.Errorf("bind queue %d of %s: %w", queue, h.Name, err), c.Close())
		}
	}
	ended, quit := make(chan error, 1), make(chan struct{})
	go func() {
		err := judgeAll(c, queue, judge)
		select {
		case <-quit: // the closed socket is how it ends
			err = nil
		default:
		}
		ended <- err
	}()
	return func() error {
		close(quit)
		return errors.Join(c.Close(), <-ended)
	}, ctx.Err()
}

func sendQueue(c *netlink.Conn, message netlink.HeaderType, flags netlink.HeaderFlags, queue uint16, a netlink.Attribute) error {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{a})
	if err != nil {
		return fmt.Errorf("encode a message about the queue: %w", err)
	}
	general := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, queue)
	_, err = c.Send(netlink.Message{
		Header: netlink.Header{Type: message, Flags: netlink.Request | flags}, Data: append(general, attributes...),
	})
	return err
}

func judgeAll(c *netlink.Conn, queue uint16, judge func([]byte) bool) error {
	for {
		messages, err := c.Receive()
		if err != nil {
			return fmt.Errorf("read queue %d: %w", queue, err)
		}
		for _, m := range messages {
			if m.Header.Type != nfqueuePacket || len(m.Data) < 4 {
				continue
			}
			attributes, err := netlink.UnmarshalAttributes(m.Data[4:])
			if err != nil {
				return fmt.Errorf("decode a packet of queue %d: %w", queue, err)
			}
			var id, packet []byte
			for _, a := range attributes {
				switch a.Type {
				case nfqueueHeader:
					id = a.Data[:4]
				case nfqueuePayload:
					packet = a.Data
				}
			}
			verdict := uint32(nfqueueDrop)
			if judge(packet) {
				verdict = nfqueueAccept
			}
			header := append(binary.BigEndian.AppendUint32(nil, verdict), id...)
			if err := sendQueue(c, nfqueueVerdict, 0, queue, netlink.Attribute{Type: nfqueueVerdictHeader, Data: header}); err != nil {
				return fmt.Errorf("judge a packet of queue %d: %w", queue, err)
			}
		}
	}
}
