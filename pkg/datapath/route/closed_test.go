package route

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/netns"
)

// wire reads the IP packets of one device.
type wire struct{ file *os.File }

// tap starts to read a device of a namespace.
func tap(t *testing.T, ns *netns.Namespace, device string) *wire {
	t.Helper()
	var fd int
	var err error
	ns.Do(t, func() {
		var dev *net.Interface
		if dev, err = net.InterfaceByName(device); err != nil {
			return
		}
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network byte order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{os.NewFile(uintptr(fd), "packets of "+device)}
	t.Cleanup(func() { w.file.Close() })
	return w
}

// until returns the destinations of all IP packets up to the one for last, which must come.
func (w *wire) until(t *testing.T, last netip.Addr) (seen []netip.Addr) {
	t.Helper()
	if err := w.file.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	for {
		n, err := w.file.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("no packet for %s came, only for %v", last, seen)
		}
		if err != nil {
			t.Fatal(err)
		}
		var to netip.Addr
		switch {
		case n >= 20 && b[0]>>4 == 4:
			to = netip.AddrFrom4([4]byte(b[16:20]))
		case n >= 40 && b[0]>>4 == 6:
			to = netip.AddrFrom16([16]byte(b[24:40]))
		default:
			continue
		}
		if to == last {
			return seen
		}
		seen = append(seen, to)
	}
}

// No agent runs here: nothing repairs anything.
func TestPacketsForOtherRegionsAreRefusedAndDoNotLeaveByTheDefaultRouteWhenTheirDeviceHasGone(t *testing.T) {
	for _, c := range []struct{ where, loss string }{
		{"member", "ip link del raven0"},
		{"member", "ip link set raven0 down"},
		{"gateway", "ip link del " + plainName},
		{"gateway", "ip link set " + plainName + " down"},
	} {
		t.Run(c.loss, func(t *testing.T) {
			netns.Run(t, func(t *testing.T) {
				w := newWorld(t)
				bring(t, w.member, memberPlan())
				bring(t, w.gateway, gatewayPlan())
				bring(t, w.cloud, cloudPlan())
				w.gateway.Do(t, func() { // the pod network's way, for what answers the member's pods
					run(t, "ip route add 10.1.2.0/24 via 10.0.0.5 dev eth0")
					run(t, "ip -6 route add fd00:1:2::/64 via fd00::5 dev eth0")
				})
				node, far := w.member, w.gateway
				if c.where == "gateway" {
					node, far = w.gateway, w.member
				}
				node.Do(t, func() {
					run(t, "ip route replace default via 10.0.0.254 dev eth0")
					run(t, "ip -6 route replace default via fd00::fe dev eth0")
					for _, router := range []string{"10.0.0.254", "fd00::fe"} {
						run(t, "ip neigh replace "+router+" lladdr 02:00:00:00:00:fe dev eth0 nud permanent")
					}
				})
				remotes := map[string]string{"10.2.1.9": "192.0.2.1", "fd00:2:1::9": "2001:db8::1"} // and what main routes
				for to := range remotes {
					if out, ok := ping(t, w.edgePod, to); !ok {
						t.Fatalf("nothing goes to %s to begin with:\n%s", to, out)
					}
				}
				node.Do(t, func() { run(t, c.loss) })
				for to, elsewhere := range remotes {
					uplink := tap(t, far, "eth0")
					for name, from := range map[string]*netns.Namespace{"the node": node, "a pod": w.edgePod} {
						out, ok := ping(t, from, to)
						if ok || !strings.Contains(strings.ToLower(out), "unreachable") && !strings.Contains(out, "No route") {
							t.Errorf("%s was not told that %s is unreachable:\n%s", name, to, out)
						}
					}
					ping(t, node, "-W 0.01 "+elsewhere)
					for _, seen := range uplink.until(t, addr(elsewhere)) {
						if seen == addr(to) {
							t.Errorf("a packet for %s left by the default route", to)
						}
					}
				}
			})
		})
	}
}

func TestAThrowWinsOverTheUnreachableTwinOfItsPrefix(t *testing.T) {
	onNode(t, memberPlan(), func(t *testing.T, n *node) {
		n.plan.Throws = append(n.plan.Throws, addr("10.2.1.200"), addr("fd00:2:1::200"))
		n.apply(t)
		run(t, "ip route add default via 10.0.0.254 dev eth0")
		run(t, "ip -6 route add default via fd00::fe dev eth0")
		run(t, "ip link del raven0")
		for _, a := range []string{"10.2.1.200", "fd00:2:1::200"} {
			if out := run(t, "ip route get "+a); !strings.Contains(out, "dev eth0") {
				t.Errorf("%s does not take the main table: %s", a, out)
			}
		}
		expect(t, "unreachable 10.2.1.0/24 proto 114 metric 4294967295",
			"unreachable fd00:2:1::/64 dev lo proto 114 metric 4294967295 pref medium")
	})
}

func TestThePrefixesOfTheOwnRegionHaveNoUnreachableTwin(t *testing.T) {
	onNode(t, gatewayPlan(), func(t *testing.T, n *node) {
		n.apply(t)
		if out := run(t, "ip route show table 9028") + run(t, "ip -6 route show table 9028"); strings.Contains(out, "unreachable") {
			t.Errorf("table 9028 holds\n%s", out)
		}
	})
}
