package vici

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Types of packets.
const (
	cmdRequest      = 0
	cmdResponse     = 1
	cmdUnknown      = 2
	eventRegister   = 3
	eventUnregister = 4
	eventConfirm    = 5
	eventUnknown    = 6
	event           = 7
)

// maxPacket in bytes: charon's own limit is 512 KiB.
const maxPacket = 512 << 10

// Conn is a connection to charon. It serves one call at a time. After an error of the connection itself, or a context
// that ended during a call, every further call fails: dial again.
type Conn struct {
	c      net.Conn
	broken error
}

// CommandError is charon's answer that it did not do what it was asked to.
type CommandError struct{ Command, Message string }

func (e *CommandError) Error() string {
	return fmt.Sprintf("charon refused %s: %s", e.Command, e.Message)
}

// Dial connects to charon's VICI socket at path.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to charon's VICI socket: %w", err)
	}
	return &Conn{c: c}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }

// Call runs a command and returns its answer; request may be nil. A command that charon says has failed gives a
// *CommandError together with the answer.
func (c *Conn) Call(ctx context.Context, command string, request *Message) (*Message, error) {
	return c.Stream(ctx, command, "", request, nil)
}

// Stream runs a command that answers with events of one name before its answer proper, such as list-sas with list-sa.
func (c *Conn) Stream(
	ctx context.Context, command, name string, request *Message, each func(*Message),
) (answer *Message, err error) {
	if c.broken != nil {
		return nil, fmt.Errorf("this connection to charon failed before: %w", c.broken)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	body, err := request.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode %s for charon: %w", command, err)
	}
	// A deadline in the past ends the reads and writes under way.
	stop := context.AfterFunc(ctx, func() { _ = c.c.SetDeadline(time.Unix(1, 0)) })
	answer, err = c.exchange(command, name, body, each)
	interrupted := !stop()
	var refused *CommandError
	if err != nil && !errors.As(err, &refused) {
		c.broken = err
		if interrupted {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("ask charon for %s: %w", command, err)
	}
	if interrupted {
		c.broken = ctx.Err()
	}
	return answer, err
}

// Listen calls each for every event of these names until ctx ends, which is no error, and confirmed once charon has said that
// it tells. The connection is of no use afterwards.
func (c *Conn) Listen(ctx context.Context, names []string, confirmed func(), each func(name string, m *Message)) error {
	defer context.AfterFunc(ctx, func() { _ = c.c.SetDeadline(time.Unix(1, 0)) })()
	c.broken = errors.New("it listens to events")
	err := c.listen(names, confirmed, each)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("listen to charon's events: %w", err)
}

func (c *Conn) listen(names []string, confirmed func(), each func(name string, m *Message)) error {
	for _, name := range names {
		// What comes of the first before the others are confirmed belongs to nothing that the caller has asked for yet.
		if err := c.subscribe(eventRegister, name, nil); err != nil {
			return err
		}
	}
	confirmed()
	for {
		kind, body, err := c.packet()
		if err != nil {
			return err
		}
		if kind != event {
			return fmt.Errorf("an unexpected packet of type %d came", kind)
		}
		r := reader{rest: body}
		name, err := r.name()
		if err != nil {
			return err
		}
		m, err := Decode(r.rest)
		if err != nil {
			return err
		}
		each(name, m)
	}
}

func (c *Conn) exchange(command, name string, body []byte, each func(*Message)) (*Message, error) {
	if name != "" {
		if err := c.subscribe(eventRegister, name, each); err != nil {
			return nil, err
		}
	}
	if err := c.send(cmdRequest, command, body); err != nil {
		return nil, err
	}
	answer, refused := c.receive(command, each)
	var asked *CommandError
	if refused != nil && !errors.As(refused, &asked) {
		return nil, refused
	}
	if name != "" {
		if err := c.subscribe(eventUnregister, name, each); err != nil {
			return nil, err
		}
	}
	return answer, refused
}

func (c *Conn) receive(command string, each func(*Message)) (*Message, error) {
	for {
		kind, body, err := c.packet()
		if err != nil {
			return nil, err
		}
		switch kind {
		case event:
			if err := deliver(body, each); err != nil {
				return nil, err
			}
		case cmdUnknown:
			return nil, &CommandError{command, "this charon does not know the command"}
		case cmdResponse:
			m, err := Decode(body)
			if err != nil {
				return nil, err
			}
			if m.Get("success") == "no" {
				return m, &CommandError{command, m.Get("errmsg")}
			}
			return m, nil
		default:
			return nil, fmt.Errorf("an unexpected packet of type %d came", kind)
		}
	}
}

// subscribe registers or unregisters for events of one name; events that come in between are delivered.
func (c *Conn) subscribe(kind byte, name string, each func(*Message)) error {
	if err := c.send(kind, name, nil); err != nil {
		return err
	}
	for {
		got, body, err := c.packet()
		switch {
		case err != nil:
			return err
		case got == eventConfirm:
			return nil
		case got == eventUnknown:
			return fmt.Errorf("this charon knows no event %s", name)
		case got != event:
			return fmt.Errorf("an unexpected packet of type %d came", got)
		}
		if err := deliver(body, each); err != nil {
			return err
		}
	}
}

func deliver(body []byte, each func(*Message)) error {
	r := reader{rest: body}
	if _, err := r.name(); err != nil {
		return err
	}
	m, err := Decode(r.rest)
	if err != nil {
		return err
	}
	if each != nil {
		each(m)
	}
	return nil
}

func (c *Conn) send(kind byte, name string, body []byte) error {
	b := append(make([]byte, 4, 4+2+len(name)+len(body)), kind)
	b, err := appendName(b, name)
	if err != nil {
		return err
	}
	b = append(b, body...)
	if len(b)-4 > maxPacket {
		return fmt.Errorf("the packet has %d bytes; charon takes %d", len(b)-4, maxPacket)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, err = c.c.Write(b)
	return err
}

func (c *Conn) packet() (kind byte, body []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxPacket {
		return 0, nil, fmt.Errorf("a packet claims %d bytes; 1 to %d are possible", n, maxPacket)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.c, b); err != nil {
		return 0, nil, err
	}
	return b[0], b[1:], nil
}
