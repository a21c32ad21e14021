package front

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/proxy/hello"
	"github.com/ravencni/raven/pkg/proxy/metrics"
	"github.com/ravencni/raven/pkg/proxy/refusal"
	"github.com/ravencni/raven/pkg/proxy/relay"
	"github.com/ravencni/raven/pkg/proxy/target"
)

// ServeTLS carries TLS connections to a port of the node that their server name names, until the listener is closed. It
// ends no TLS itself: client and node authenticate one another.
func (f *Front) ServeTLS(l net.Listener, port uint16) error {
	return f.accept(l, metrics.FrontTLS, new(sync.WaitGroup), func(c *client) { f.serveTLS(c, port) })
}

func (f *Front) serveTLS(c *client, port uint16) {
	to := target.HostPort{Port: port}
	hello, err := f.helloOf(c, &to.Host)
	c.decided()
	var route Route
	if err == nil {
		route, err = f.Directory.Find(to)
	}
	if err == nil {
		s := &stream{front: f, kind: metrics.FrontTLS, client: c, to: to, route: route, first: hello}
		if err = s.carry(context.Background()); err == nil {
			return
		}
		if _, refused := errors.AsType[*refusal.Error](err); !refused {
			_ = c.Close() // it was carried, and is closed by now
			return
		}
	}
	e := f.refuse(metrics.FrontTLS, c.source.String(), to, err)
	_ = c.SetDeadline(time.Now().Add(time.Second)) // for one small packet
	if _, err := c.Write(alert(e.Reason)); err != nil {
		relay.Abort(c)
	}
	_ = c.Close() // the alert was the last word
}

// helloOf reads the ClientHello and the host that it names.
func (f *Front) helloOf(c *client, host *target.Host) ([]byte, error) {
	begin := time.Now()
	if err := c.SetReadDeadline(begin.Add(f.Hello)); err != nil {
		return nil, err
	}
	raw, name, err := hello.Read(c)
	if err != nil {
		return nil, describe(err, time.Since(begin) >= f.Hello)
	}
	h, err := target.ParseHost(name)
	if err != nil || h.Address.IsValid() {
		return nil, refusal.New(refusal.BadTarget, "", "", "the server name is no node's: %v", err)
	}
	*host = h
	return raw, c.SetReadDeadline(time.Time{})
}
