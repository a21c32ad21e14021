package lab_test

import (
	"strings"
	"testing"

	"github.com/ravencni/raven/test/lab"
)

func TestAMonitorTellsOfEachChangeOnce(t *testing.T) {
	ctx, l := start(t, "monitor", lab.Pair())
	h := l.Host("east-1")
	m, err := h.Monitor(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop() //nolint:errcheck // ends by being killed
	for _, c := range []struct{ label, does, undoes, holds string }{
		{"[ROUTE]", "ip route add 192.0.2.0/24 dev eth0 table 77", "ip route del 192.0.2.0/24 table 77", "192.0.2.0/24"},
		{"[RULE]", "ip rule add prio 55 table 77", "ip rule del prio 55", "lookup 77"},
		{"[NEIGH]", "ip neigh add 172.16.1.99 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
			"ip neigh replace 172.16.1.99 lladdr 02:00:00:00:00:03 dev eth0 nud permanent", "172.16.1.99"},
		{"[FDB]", "bridge fdb add 02:00:00:00:00:02 dev eth0 self", "bridge fdb del 02:00:00:00:00:02 dev eth0 self", "02:00:00:00:00:02"},
		{"[NFT]", "nft add table inet t77", "nft delete table inet t77", "t77"},
	} {
		if _, err := h.Run(ctx, "sh", "-c", c.does); err != nil {
			t.Fatal(err)
		}
		for _, undo := range []bool{false, true} {
			events, err := m.Events(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if n := count(events, c.label, c.holds); n != 1 {
				t.Errorf("%s (undone: %t): %d events with %s and %q, want 1, among %q", c.does, undo, n, c.label, c.holds, events)
			}
			if len(events) != 1 && c.label != "[NFT]" {
				t.Errorf("%s (undone: %t): more than asked for: %q", c.does, undo, events)
			}
			if undo {
				break
			}
			if _, err := h.Run(ctx, "sh", "-c", c.undoes); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func count(events []string, label, holds string) (n int) {
	for _, e := range events {
		if strings.HasPrefix(e, label) && strings.Contains(e, holds) {
			n++
		}
	}
	return n
}
