package regions_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/ravencni/raven/test/lab"
)

// door is a port that leads from one network namespace to another: regions reach the API server by one, which lives outside
// all of them, and it reaches into a region by another.
type door struct {
	listener net.Listener
	dial     func() (net.Conn, error)
	serving  sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]bool
	ended bool
}

// openDoor listens on a host of the lab and passes connections on to an address of this process's own network.
func openDoor(h *lab.Host, at, to string) (*door, error) {
	d := &door{dial: func() (net.Conn, error) { return net.Dial("tcp4", to) }, open: map[net.Conn]bool{}}
	err := h.Do(func() (err error) {
		d.listener, err = net.Listen("tcp4", at)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s of %s: %w", at, h.Name, err)
	}
	d.serving.Go(d.accept)
	return d, nil
}

// openInward listens in this process's own network and passes connections on to an address as a host of the lab sees it.
func openInward(h *lab.Host, at, to string) (*door, error) {
	d := &door{open: map[net.Conn]bool{}, dial: func() (c net.Conn, err error) {
		err = h.Do(func() error {
			c, err = net.Dial("tcp4", to)
			return err
		})
		return c, err
	}}
	var err error
	if d.listener, err = net.Listen("tcp4", at); err != nil {
		return nil, fmt.Errorf("listen on %s for %s: %w", at, h.Name, err)
	}
	d.serving.Go(d.accept)
	return d, nil
}

func (d *door) accept() {
	for {
		from, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.serving.Go(func() { d.pass(from) })
	}
}

// pass copies both ways until either side has ended. An API server that is away is a connection that ends at once.
func (d *door) pass(from net.Conn) {
	defer d.drop(from)
	to, err := d.dial()
	if err != nil {
		return
	}
	defer d.drop(to)
	if !d.hold(from) || !d.hold(to) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		// How a connection ends is the business of its two ends.
		_, _ = io.Copy(from, to)
		_ = from.Close()
	})
	_, _ = io.Copy(to, from)
	_ = to.Close()
	back.Wait()
}

// hold remembers a connection, so that close ends it; it reports whether the door is open.
func (d *door) hold(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[c] = true
	return !d.ended
}

func (d *door) drop(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, c)
	_ = c.Close()
}

// close ends every connection and waits for all that serve them.
func (d *door) close() error {
	err := d.listener.Close()
	d.mu.Lock()
	d.ended = true
	for c := range d.open {
		_ = c.Close() // it may have ended by itself
	}
	d.mu.Unlock()
	d.serving.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
