package wireguard

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	testns "github.com/ravencni/raven/test/netns"
)

// host is a thread in network and mount namespaces of its own that runs what it is given.
type host struct {
	t    *testing.T
	name string
	ns   netns.NsHandle
	work chan func()
	*Driver
}

// newHost starts a host that lives as long as the test.
func newHost(t *testing.T, name string) *host {
	t.Helper()
	h := &host{t: t, name: name, work: make(chan func())}
	var wg sync.WaitGroup
	ready := make(chan error, 1)
	wg.Go(func() {
		testns.Run(t, func(*testing.T) {
			ns, err := netns.Get()
			h.ns = ns
			ready <- err
			for f := range h.work {
				f()
			}
		})
		close(ready)
	})
	if err, ok := <-ready; !ok || err != nil {
		t.Fatalf("make host %s: %v", name, err)
	}
	t.Cleanup(func() {
		close(h.work)
		wg.Wait()
		h.ns.Close()
	})
	return h
}

// do runs f in the host and fails the test if it fails.
func (h *host) do(f func() error) {
	h.t.Helper()
	if err := h.try(f); err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
}

func (h *host) try(f func() error) error {
	done := make(chan error)
	h.work <- func() { done <- f() }
	return <-done
}

// run executes a command in the host and returns what it printed.
func (h *host) run(command string, args ...string) string {
	h.t.Helper()
	var out []byte
	h.do(func() (err error) {
		out, err = exec.Command(command, args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s %q: %w: %s", command, args, err, out)
		}
		return err
	})
	return string(out)
}

// cable joins two hosts by a veth pair with the given addresses.
func cable(a *host, aName, aAddr string, b *host, bName, bAddr string) {
	a.t.Helper()
	a.do(func() error {
		if err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: aName}, PeerName: bName, PeerNamespace: netlink.NsFd(int(b.ns)),
		}); err != nil {
			return err
		}
		return address(aName, aAddr)
	})
	b.do(func() error { return address(bName, bAddr) })
}

func address(device, cidr string) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	addr.Flags = 0x02 // no duplicate address detection
	if err := netlink.AddrAdd(l, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// kernelToo runs the tests on the kernel's WireGuard, on a machine whose kernel has it; those about the userspace
// device's process are then skipped.
var kernelToo = os.Getenv("RAVEN_TEST_WIREGUARD") == "kernel"

func needsUserspace(t *testing.T) {
	t.Helper()
	if kernelToo {
		t.Skip("is about the userspace device's process")
	}
}

// serve gives the host a driver with a state folder of its own and ends the device's process with the test.
func (h *host) serve(opts Options) *host {
	h.t.Helper()
	if opts.StateDir == "" {
		opts.StateDir = h.t.TempDir()
	}
	opts.Userspace = !kernelToo
	d, err := New(opts)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Driver = d
	h.t.Cleanup(func() { h.do(func() error { return d.Cleanup(context.Background()) }) })
	return h
}

// restart replaces the driver by a new one on the same state folder, as a restart of the agent does.
func (h *host) restart() {
	h.t.Helper()
	d, err := New(h.opts)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Driver = d
}

func (h *host) key() string {
	h.t.Helper()
	var key string
	h.do(func() (err error) {
		key, err = h.PublicKey(context.Background())
		return err
	})
	return key
}

// apply applies plan and fails the test unless it makes the wanted number of writes; -1 takes any.
func (h *host) apply(plan *topology.Plan, changes int) tunnel.Result {
	h.t.Helper()
	var result tunnel.Result
	h.do(func() (err error) {
		result, err = h.Apply(context.Background(), plan)
		return err
	})
	if changes >= 0 && result.Changes != changes {
		h.t.Errorf("%s: Apply made %d writes, want %d", h.name, result.Changes, changes)
	}
	return result
}

func (h *host) status() map[string]tunnel.PeerStatus {
	h.t.Helper()
	all := map[string]tunnel.PeerStatus{}
	h.do(func() error {
		list, err := h.Status(context.Background())
		for _, s := range list {
			all[s.Node] = s
		}
		return err
	})
	return all
}

// device reads the WireGuard device.
func (h *host) device() *wgtypes.Device {
	h.t.Helper()
	var dev *wgtypes.Device
	h.do(func() error {
		c, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer c.Close()
		dev, err = c.Device(DefaultDevice)
		return err
	})
	return dev
}

// route sends prefix into device, or to a gateway where via is set.
func (h *host) route(prefix, device, via string) {
	h.t.Helper()
	h.do(func() error {
		_, dst, err := net.ParseCIDR(prefix)
		if err != nil {
			return err
		}
		r := &netlink.Route{Dst: dst, Gw: net.ParseIP(via)}
		if device != "" {
			l, err := netlink.LinkByName(device)
			if err != nil {
				return err
			}
			r.LinkIndex, r.Scope = l.Attrs().Index, netlink.SCOPE_LINK
		}
		return netlink.RouteReplace(r)
	})
}

// pod gives the host an address that stands for one of its pods.
func (h *host) pod(addr string) {
	h.t.Helper()
	h.do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
			return err
		}
		return address("lo", addr)
	})
}

// echo answers UDP datagrams on addr until the test ends.
func (h *host) echo(addr string) {
	h.t.Helper()
	pc := h.listen(addr)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := pc.WriteTo(buf[:n], from); err != nil {
				return
			}
		}
	})
	h.t.Cleanup(func() {
		pc.Close()
		wg.Wait()
	})
}

// awaitPing waits until the underlay carries packets, since the kernel activates a new cable in its own time and a lost
// handshake is repeated only after five seconds.
func (h *host) awaitPing(to string) {
	h.t.Helper()
	h.run("ping", "-c", "1", "-i", "0.02", "-w", "10", to)
}

func (h *host) listen(addr string) (pc net.PacketConn) {
	h.t.Helper()
	h.do(func() (err error) {
		pc, err = net.ListenPacket("udp", addr)
		return err
	})
	return pc
}

// awaitEcho sends datagrams from one address to another until one comes back, for at most the given time.
func (h *host) awaitEcho(from, to string, most time.Duration) time.Duration {
	h.t.Helper()
	began := time.Now()
	h.do(func() error {
		local, err := net.ResolveUDPAddr("udp", net.JoinHostPort(from, "0"))
		if err != nil {
			return err
		}
		remote, err := net.ResolveUDPAddr("udp", to)
		if err != nil {
			return err
		}
		c, err := net.DialUDP("udp", local, remote)
		if err != nil {
			return err
		}
		defer c.Close()
		buf := make([]byte, 64)
		for n := 0; time.Since(began) < most; n++ {
			want := fmt.Sprintf("datagram %d", n)
			// ENOKEY and ECONNREFUSED tell of earlier datagrams and are what is waited out here.
			_, _ = c.Write([]byte(want))
			if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				return err
			}
			if got, err := c.Read(buf); err == nil && got > 0 {
				return nil
			}
		}
		return fmt.Errorf("no answer from %s to %s within %v", to, from, most)
	})
	return time.Since(began)
}

func plan(node string, ip string, peers ...topology.Peer) *topology.Plan {
	p := &topology.Plan{Node: node, Region: node, Role: topology.RoleGateway, NodeIP4: netip.MustParseAddr(ip)}
	p.Tunnel = &topology.Tunnel{Driver: Name, ListenPort: 4500, MTU: 1405, Peers: peers}
	return p
}

func peerAt(node, key, endpoint string, keepalive int, prefixes ...string) topology.Peer {
	p := topology.Peer{Region: node, Node: node, PublicKey: key, KeepaliveSeconds: keepalive}
	if endpoint != "" {
		p.Endpoint = netip.MustParseAddrPort(endpoint)
	}
	for _, s := range prefixes {
		p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(s))
	}
	return p
}
