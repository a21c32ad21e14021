package ipsec

import (
	"context"
	"log/slog"
	"strconv"

	"github.com/ravencni/raven/pkg/tunnel/ipsec/vici"
)

// Events of charon's about associations: one has come or gone, one has taken another one's place.
const (
	childUpDown = "child-updown"
	childRekey  = "child-rekey"
)

// events is a connection by which charon tells of its associations.
type events struct {
	connection *vici.Conn
	stop       context.CancelFunc
	ended      chan struct{}
}

// listenToEvents tells e of charon's associations until it is closed or charon ends.
func listenToEvents(socket string, e *early, log *slog.Logger) (*events, error) {
	ctx, stop := context.WithCancel(context.Background())
	dialing, cancel := context.WithTimeout(ctx, charonTimeout)
	defer cancel()
	connection, err := vici.Dial(dialing, socket)
	if err != nil {
		stop()
		return nil, err
	}
	v := &events{connection: connection, stop: stop, ended: make(chan struct{})}
	confirmed := make(chan struct{})
	go func() {
		defer close(v.ended)
		err := connection.Listen(ctx, []string{childUpDown, childRekey}, func() {
			e.tells(true) // nobody has asked charon for a tunnel yet, so it tells of each
			close(confirmed)
		}, func(name string, m *vici.Message) { readEvent(name, m, e) })
		e.tells(false)
		if err != nil {
			log.Debug("charon tells of no more associations", "error", err) // it ends, which others notice
		}
	}()
	select {
	case <-confirmed:
	case <-v.ended:
	case <-dialing.Done():
	}
	return v, nil
}

// close ends it; nil has nothing to end.
func (v *events) close() error {
	if v == nil {
		return nil
	}
	v.stop()
	<-v.ended
	return v.connection.Close()
}

// readEvent takes the numbers of associations out of an event.
func readEvent(name string, m *vici.Message, e *early) {
	up := m.Get("up") == "yes"
	for _, key := range m.Keys() {
		ike := m.Section(key)
		if ike == nil {
			continue
		}
		children := ike.Section("child-sas")
		for _, key := range children.Keys() {
			child := children.Section(key)
			switch {
			case name == childRekey:
				tell(child.Section("new"), e.arrived)
				tell(child.Section("old"), e.superseded)
			case up:
				tell(child, e.arrived)
			default:
				tell(child, e.left)
			}
		}
	}
}

// tell passes on the number by which a peer sends.
func tell(child *vici.Message, what func(uint32)) {
	if number, err := strconv.ParseUint(child.Get("spi-in"), 16, 32); err == nil {
		what(uint32(number))
	}
}
