package rtnl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// batchMessages bounds one send. Only failures and the last message are answered, and their answers must fit the
	// socket's receive buffer (212,992 bytes by default, under 1 KiB charged per answer).
	batchMessages = 128
	// receiveBytes holds any single datagram: the kernel fills at most 32 KiB per read of a dump.
	receiveBytes = 64 << 10
	// dumpAttempts bounds how often a dump that the kernel calls inconsistent is asked again.
	dumpAttempts = 10
	// answerSeconds bounds the wait for an answer, which the kernel normally queues before the send returns.
	answerSeconds = 10
)

// ErrInterrupted says that the dumped table changed under every one of several dumps; ask again later.
var ErrInterrupted = errors.New("the table kept changing while it was read")

// Conn is a socket to the kernel's rtnetlink in the network namespace of the thread that called Open. It is for one
// goroutine at a time, on any thread.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// Request is one message to write.
type Request struct {
	// Type is RTM_NEWROUTE and the like.
	Type uint16
	// Flags such as NLM_F_CREATE; NLM_F_REQUEST is added.
	Flags uint16
	// Payload is the family header followed by attributes.
	Payload []byte
}

// Open makes a Conn in the network namespace of the calling thread. The caller closes it.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	c := &Conn{fd: fd, buf: make([]byte, receiveBytes)}
	if err := c.configure(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Conn) configure() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind a netlink socket: %w", err)
	}
	wait := unix.Timeval{Sec: answerSeconds}
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return fmt.Errorf("set the receive timeout of a netlink socket: %w", err)
	}
	// Strict checking makes the kernel honour the filters of a dump; the other two make a failure's answer short and
	// give it the kernel's words. Kernels before 4.20 know no strict checking and dump everything: callers filter too.
	for _, opt := range []int{unix.NETLINK_GET_STRICT_CHK, unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK} {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, opt, 1); err != nil && err != unix.ENOPROTOOPT {
			return fmt.Errorf("set option %d of a netlink socket: %w", opt, err)
		}
	}
	return nil
}

// Close ends the Conn.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Dump asks for all objects that match payload and returns the payload of each answer. An inconsistent answer is asked
// for again; a filter that names a table that does not exist gives an empty answer.
func (c *Conn) Dump(typ uint16, payload []byte) ([][]byte, error) {
	for range dumpAttempts {
		out, interrupted, err := c.dumpOnce(typ, payload)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		if err != nil || !interrupted {
			return out, err
		}
	}
	return nil, ErrInterrupted
}

func (c *Conn) dumpOnce(typ uint16, payload []byte) (out [][]byte, interrupted bool, err error) {
	c.seq++
	msg := appendMessage(nil, typ, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, c.seq, payload)
	if err := c.send(msg); err != nil {
		return nil, false, err
	}
	for {
		data, err := c.receive()
		if err != nil {
			return nil, false, err
		}
		// Payloads outlive the receive buffer.
		data = append([]byte(nil), data...)
		for len(data) > 0 {
			var m message
			if m, data, err = nextMessage(data); err != nil {
				return nil, false, err
			}
			if m.seq != c.seq {
				continue // the rest of a dump that failed half way
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				return out, interrupted, answerError(m)
			default:
				out = append(out, m.payload)
			}
		}
	}
}

// Get asks for one object and returns the payload of the answer, or the kernel's error, such as ENODEV.
func (c *Conn) Get(typ uint16, payload []byte) ([]byte, error) {
	c.seq++
	if err := c.send(appendMessage(nil, typ, unix.NLM_F_REQUEST, c.seq, payload)); err != nil {
		return nil, err
	}
	for {
		data, err := c.receive()
		if err != nil {
			return nil, err
		}
		for len(data) > 0 {
			var m message
			if m, data, err = nextMessage(data); err != nil {
				return nil, err
			}
			switch {
			case m.seq != c.seq:
			case m.typ == unix.NLMSG_ERROR:
				return nil, answerError(m)
			default:
				return append([]byte(nil), m.payload...), nil // it outlives the receive buffer
			}
		}
	}
}

// Write sends the requests in order and returns one error per request, nil where it was carried out.
func (c *Conn) Write(requests []Request) []error {
	errs := make([]error, len(requests))
	for start := 0; start < len(requests); start += batchMessages {
		end := min(start+batchMessages, len(requests))
		if err := c.writeBatch(requests[start:end], errs[start:end]); err != nil {
			for i := start; i < len(requests); i++ {
				if errs[i] == nil {
					errs[i] = err
				}
			}
			return errs
		}
	}
	return errs
}

// writeBatch fills errs, and fails where the conversation itself broke.
func (c *Conn) writeBatch(requests []Request, errs []error) error {
	first := c.seq + 1
	var msgs []byte
	for i, r := range requests {
		c.seq++
		flags := r.Flags | unix.NLM_F_REQUEST
		if i == len(requests)-1 {
			flags |= unix.NLM_F_ACK
		}
		msgs = appendMessage(msgs, r.Type, flags, c.seq, r.Payload)
	}
	if err := c.send(msgs); err != nil {
		return err
	}
	for {
		data, err := c.receive()
		if err != nil {
			return err
		}
		for len(data) > 0 {
			var m message
			if m, data, err = nextMessage(data); err != nil {
				return err
			}
			if m.typ != unix.NLMSG_ERROR || m.seq < first || m.seq > c.seq {
				continue
			}
			errs[m.seq-first] = answerError(m)
			if m.seq == c.seq {
				return nil
			}
		}
	}
}

func (c *Conn) send(msg []byte) error {
	if err := unix.Sendto(c.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to netlink: %w", err)
	}
	return nil
}

func (c *Conn) receive() ([]byte, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive from netlink: %w", err)
		}
		return c.buf[:n], nil
	}
}
