package lab_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestTheWatchOnTheWireSeesWhatIsNotTheTunnels(t *testing.T) {
	ctx, l := start(t, "watch", lab.Tutorial())
	listener, err := l.Host("cloud-1").ListenUDP(ctx, ":4500") // nobody there would make ICMP errors
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // nothing was written
	deadline, _ := ctx.Deadline()
	if err := listener.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	public, relay := netip.MustParseAddrPort("198.51.100.6:4500"), netip.MustParseAddrPort("203.0.113.10:4500")
	for _, c := range []struct {
		name     string
		from, to netip.AddrPort
		want     string
	}{
		{"an inner destination", public, netip.MustParseAddrPort("10.244.17.19:7"), "10.244.17.19"},
		{"another port", public, netip.MustParseAddrPort("203.0.113.10:53"), ":53"},
		{"the tunnel", public, relay, ""},
	} {
		_, err := checks.WatchTheWire(t.Context(), l, func(context.Context) error {
			// The last one, which the watch allows, takes the same way: where it has come, the first has passed.
			box := l.Host(lab.Box("hangzhou"))
			err := errors.Join(
				box.SendIP(lab.UDPPacket(c.from, c.to, 64, []byte("first"))),
				box.SendIP(lab.UDPPacket(public, relay, 64, []byte("last"))))
			for got := make([]byte, 5); err == nil && string(got) != "last\x00"; {
				clear(got)
				_, err = listener.Read(got)
			}
			return err
		})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the watch says %v, want it to name %q", c.name, err, c.want)
		}
	}
}
