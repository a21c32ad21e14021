package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	testns "github.com/ravencni/raven/test/netns"
)

const mainPort = 4500

// world is a hub and two edges, east and west, that dial it, each on a wire of its own.
type world struct {
	t *testing.T
	subject
	hub, east, west *host
}

func newWorld(t *testing.T, s subject) *world {
	t.Helper()
	w := &world{t: t, subject: s}
	w.hub = newHost(t, s, "hub", 0)
	w.east, w.west = newHost(t, s, "east", 1), newHost(t, s, "west", 2)
	for n, edge := range []*host{w.east, w.west} {
		cable(w.hub, edge, n+1)
	}
	w.hub.plan.NodeIP4 = netip.MustParseAddr("198.51.1.1")
	w.hub.plan.Tunnel.Peers = []topology.Peer{w.peer(w.east), w.peer(w.west)}
	for n, edge := range []*host{w.east, w.west} {
		other := []*host{w.west, w.east}[n]
		hub := w.peer(w.hub)
		hub.Endpoint = netip.MustParseAddrPort(fmt.Sprintf("198.51.%d.1:%d", n+1, mainPort))
		hub.KeepaliveSeconds = 25
		hub.Prefixes = append(hub.Prefixes, other.plan.LocalPrefixes...)
		hub.Relays = []string{other.name}
		edge.plan.NodeIP4 = netip.MustParseAddr(fmt.Sprintf("198.51.%d.2", n+1))
		edge.plan.Tunnel.Peers = []topology.Peer{hub}
	}
	return w
}

func (w *world) all() []*host { return []*host{w.hub, w.east, w.west} }

// peer is a host as others plan it, without an endpoint.
func (w *world) peer(h *host) topology.Peer {
	key := ""
	h.do(func() (err error) {
		key, err = h.driver.PublicKey(context.Background())
		return err
	})
	return topology.Peer{Region: h.name, Node: h.name, PublicKey: key, Prefixes: append([]netip.Prefix(nil), h.plan.LocalPrefixes...)}
}

// host is a gateway on a thread in network and mount namespaces of its own.
type host struct {
	t    *testing.T
	name string
	self string
	dir  string
	ns   netns.NsHandle
	work chan func()
	subject
	driver tunnel.Driver
	plan   *topology.Plan
	last   tunnel.Result
	// pods are an address in each family.
	pods [2]netip.Addr
}

func newHost(t *testing.T, s subject, name string, number int) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "rconf") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t, name: name, dir: dir, work: make(chan func()), subject: s}
	if h.self, err = os.Executable(); err != nil {
		t.Fatal(err)
	}
	var ended sync.WaitGroup
	ready := make(chan error, 1)
	ended.Go(func() {
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
		ended.Wait()
		h.ns.Close()
	})
	h.pods = [2]netip.Addr{netip.AddrFrom4([4]byte{10, byte(number), 0, 1}), netip.MustParseAddr(fmt.Sprintf("fd00:%d::1", number))}
	h.do(func() error {
		for _, family := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+family, []byte("1"), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	for _, pod := range h.pods {
		h.pod(pod)
	}
	h.plan = &topology.Plan{
		Node: name, Region: name, Role: topology.RoleGateway, Tunnel: &topology.Tunnel{Driver: s.protocol, ListenPort: mainPort, MTU: 1400},
		LocalPrefixes: []netip.Prefix{netip.PrefixFrom(h.pods[0], 24).Masked(), netip.PrefixFrom(h.pods[1], 64).Masked()},
	}
	h.newDriver()
	t.Cleanup(func() {
		if err := h.try(func() error { return h.driver.Cleanup(context.Background()) }); err != nil {
			t.Errorf("clean up %s: %v", name, err)
		}
		if t.Failed() {
			for _, log := range []string{"ipsec-daemon.log", "wireguard-device.log"} {
				if text, err := os.ReadFile(filepath.Join(dir, "state", log)); err == nil {
					t.Logf("%s's %s:\n%s", name, log, text)
				}
			}
		}
	})
	return h
}

// newDriver gives the host a driver as a new agent makes it.
func (h *host) newDriver() {
	h.t.Helper()
	var err error
	if h.driver, err = h.make(h.self, h.dir); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) try(f func() error) error {
	done := make(chan error)
	h.work <- func() { done <- f() }
	return <-done
}

func (h *host) do(f func() error) {
	h.t.Helper()
	if err := h.try(f); err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
}

func (h *host) run(name string, args ...string) (out string, err error) {
	err = h.try(func() error {
		b, err := exec.Command(name, args...).CombinedOutput()
		out = string(b)
		if err != nil {
			err = fmt.Errorf("%s %q: %w: %s", name, args, err, b)
		}
		return err
	})
	return out, err
}

// pod gives the host an address that stands for one of its pods.
func (h *host) pod(a netip.Addr) {
	h.t.Helper()
	h.do(func() error { return address("lo", netip.PrefixFrom(a, a.BitLen())) })
}

// address adds one without duplicate detection and sets its device up.
func address(device string, p netip.Prefix) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	const nodad = 0x02
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(p), Flags: nodad}); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// cable joins the hub and an edge by a veth pair, 198.51.<number>.1 and .2.
func cable(hub, edge *host, number int) {
	name := "to-" + edge.name
	hub.do(func() error {
		if err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "wire", PeerNamespace: netlink.NsFd(int(edge.ns)),
		}); err != nil {
			return err
		}
		return address(name, netip.MustParsePrefix(fmt.Sprintf("198.51.%d.1/24", number)))
	})
	edge.do(func() error { return address("wire", netip.MustParsePrefix(fmt.Sprintf("198.51.%d.2/24", number))) })
	hub.await("the wire to "+edge.name, func() error { return hub.pingOnce("", fmt.Sprintf("198.51.%d.2", number)) })
}

// apply applies the plan and leads the peers' prefixes into the devices, as the route applier does.
func (h *host) apply() int {
	h.t.Helper()
	changes, err := h.tryApply()
	if err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
	return changes
}

func (h *host) tryApply() (changes int, err error) {
	err = h.try(func() error {
		h.plan.Prefixes = nil
		if h.plan.Tunnel != nil {
			for _, p := range h.plan.Tunnel.Peers {
				for _, prefix := range p.Prefixes {
					h.plan.Prefixes = append(h.plan.Prefixes, topology.Prefix{Prefix: prefix, Scope: topology.ScopeRemote})
				}
			}
		}
		result, err := h.driver.Apply(context.Background(), h.plan)
		h.last, changes = result, result.Changes
		if routeErr := h.route(); err == nil {
			err = routeErr
		}
		return err
	})
	return changes, err
}

func (h *host) route() error {
	if h.plan.Tunnel == nil {
		return nil
	}
	for _, p := range h.plan.Tunnel.Peers {
		d := h.last.Device
		for _, own := range h.last.PerPeer {
			if own.Peer == p.Node {
				d = own
			}
		}
		if d.Index == 0 {
			continue
		}
		for _, prefix := range p.Prefixes {
			if err := netlink.RouteReplace(&netlink.Route{Dst: ipNet(prefix), LinkIndex: d.Index, Scope: netlink.SCOPE_LINK}); err != nil {
				return fmt.Errorf("route %s into %s: %w", prefix, d.Name, err)
			}
		}
	}
	return nil
}

// devices are those of the last apply.
func (h *host) devices() []tunnel.Device {
	if h.last.Device.Name != "" {
		return append([]tunnel.Device{h.last.Device}, h.last.PerPeer...)
	}
	return h.last.PerPeer
}

func (h *host) status() map[string]tunnel.PeerStatus {
	h.t.Helper()
	all := map[string]tunnel.PeerStatus{}
	h.do(func() error {
		list, err := h.driver.Status(context.Background())
		for _, s := range list {
			all[s.Node] = s
		}
		return err
	})
	return all
}

// waitLong is more than any driver takes, on an emulated processor too.
const waitLong = 2 * time.Minute

func (h *host) await(what string, f func() error) time.Duration {
	h.t.Helper()
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > waitLong {
			h.t.Fatalf("%s: waited too long for %s: %v", h.name, what, err)
		}
		<-tick.C
	}
}

func (h *host) pingOnce(from, to string, args ...string) error {
	if from != "" {
		args = append(args, "-I", from)
	}
	_, err := h.run("ping", append([]string{"-c", "1", "-W", "1", to}, args...)...)
	return err
}

// awaitPods waits until the host's pods reach the other's in both families.
func (h *host) awaitPods(other *host) time.Duration {
	h.t.Helper()
	began := time.Now()
	for i := range h.pods {
		h.await("an answer from "+other.pods[i].String(), func() error { return h.pingOnce(h.pods[i].String(), other.pods[i].String()) })
	}
	return time.Since(began)
}

// pace is the time between the packets of loss checks.
func pace() time.Duration {
	if os.Getenv(SlowVariable) != "" {
		return 100 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// output collects what a process writes while it runs.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

var answered = regexp.MustCompile(`(?m)bytes from .* icmp_seq=(\d+)`)

// pinging sends echo requests to another host's pod until the function that it returns is called, which returns how many
// were lost: those without an answer that came before one with. What was under way at the end is not lost.
func (h *host) pinging(other *host) (stop func() (lost, of int)) {
	h.t.Helper()
	seconds := strconv.FormatFloat(pace().Seconds(), 'f', 3, 64)
	cmd := exec.Command("ping", "-i", seconds, "-I", h.pods[0].String(), other.pods[0].String())
	out := new(output)
	cmd.Stdout, cmd.Stderr = out, out
	h.do(cmd.Start)
	return func() (lost, of int) {
		// What a change did shows in the packets after it.
		have := len(answered.FindAllString(out.String(), -1))
		h.await("more answers", func() error {
			if now := len(answered.FindAllString(out.String(), -1)); now < have+10 {
				return fmt.Errorf("there are %d more", now-have)
			}
			return nil
		})
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // its status says no more than its words
		came := 0
		for _, m := range answered.FindAllStringSubmatch(out.String(), -1) {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				h.t.Error(err)
			}
			came++
			of = max(of, n)
		}
		if of == 0 {
			h.t.Errorf("ping from %s to %s had no answer at all: %s", h.name, other.name, out)
		}
		return of - came, of
	}
}
