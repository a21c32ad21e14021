package ping

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ravencni/raven/test/netns"
)

func TestAnEchoIsAnsweredOrNot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for raw sockets")
	}
	netns.Run(t, func(t *testing.T) {
		for _, to := range []string{"127.0.0.1", "::1"} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if rtt, err := Once(ctx, netip.MustParseAddr(to)); err != nil || rtt <= 0 {
				t.Errorf("%s: %v, %v", to, rtt, err)
			}
			cancel()
		}
		if _, err := Once(t.Context(), netip.MustParseAddr("192.0.2.1")); err == nil || !strings.Contains(err.Error(), "unreachable") {
			t.Errorf("an address without a route gives %v", err)
		}
	})
}
