package lab_test

import (
	"context"
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
	box, relay := netip.MustParseAddrPort("198.51.100.6:4500"), netip.MustParseAddrPort("203.0.113.10:4500")
	for _, c := range []struct {
		name     string
		from, to netip.AddrPort
		want     string
	}{
		{"an inner destination", box, netip.MustParseAddrPort("10.244.17.19:7"), "10.244.17.19"},
		{"another port", box, netip.MustParseAddrPort("203.0.113.10:53"), ":53"},
		{"the tunnel", box, relay, ""},
	} {
		_, err := checks.WatchTheWire(t.Context(), l, func(context.Context) error {
			return l.Host(lab.Box("hangzhou")).SendIP(lab.UDPPacket(c.from, c.to, 64, []byte("payload")))
		})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the watch says %v, want it to name %q", c.name, err, c.want)
		}
	}
}
