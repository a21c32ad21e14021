package ipsec

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel/ipsec/vici"
	testns "github.com/ravencni/raven/test/netns"
)

// needsCharon skips where nobody asked for strongSwan: make test-ipsec does, and installs it.
func needsCharon(t *testing.T) {
	t.Helper()
	if os.Getenv("RAVEN_TEST_IPSEC") == "" {
		t.Skip("needs strongSwan: run make test-ipsec")
	}
	if _, err := exec.LookPath(charonProgram); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
}

// needsUserspace skips where the kernel encrypts, and needsKernel where it cannot.
func needsUserspace(t *testing.T, why string) {
	t.Helper()
	if chosen, _, err := ESP(os.Getenv("RAVEN_TEST_IPSEC_ESP")).resolve(); err != nil || chosen != ESPUserspace {
		t.Skip(why, err)
	}
}

func needsKernel(t *testing.T) {
	t.Helper()
	needsCharon(t)
	if chosen, reason, err := ESP(os.Getenv("RAVEN_TEST_IPSEC_ESP")).resolve(); err != nil || chosen != ESPKernel {
		t.Skip("needs a kernel with ESP and XFRM interfaces, as make test-kernels boots: ", reason, err)
	}
}

// gateway is a network namespace with a daemon.
type gateway struct {
	t    *testing.T
	name string
	ns   *testns.Namespace
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
	// env is added to the daemon's environment.
	env []string
	control
}

// newGateway makes a gateway in a namespace of its own, with pod for an address of its pods. Call it in netns.Run.
func newGateway(t *testing.T, name, pod string) *gateway {
	t.Helper()
	dir, err := os.MkdirTemp("", "ripsec") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &gateway{t: t, name: name, ns: testns.New(t), dir: dir, control: newControl(filepath.Join(dir, controlSocket))}
	g.do(func() error {
		l, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, a := range strings.Fields(pod) {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, addr); err != nil {
				return err
			}
		}
		return nil
	})
	return g
}

func (g *gateway) do(f func() error) {
	g.t.Helper()
	g.ns.Do(g.t, func() {
		if err := f(); err != nil {
			g.t.Fatalf("%s: %v", g.name, err)
		}
	})
}

// start starts the daemon; it ends with the test.
func (g *gateway) start() {
	g.t.Helper()
	log, err := os.OpenFile(filepath.Join(g.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	defer log.Close()
	g.cmd = exec.Command("/proc/self/exe", "ipsec-daemon", g.dir)
	g.cmd.Stdout, g.cmd.Stderr = log, log
	g.cmd.Env = append(os.Environ(), g.env...)
	g.do(g.cmd.Start)
	g.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		defer close(done)
		_ = cmd.Wait() // how it ends is checked where that matters
	}(g.cmd, g.done)
	g.t.Cleanup(g.stop)
	g.await("the daemon to answer", func() error {
		_, err := g.report(context.Background())
		return err
	})
}

func (g *gateway) stop() {
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	<-g.done
	if g.t.Failed() {
		text, _ := os.ReadFile(filepath.Join(g.dir, "log"))
		g.t.Logf("%s's daemon says:\n%s", g.name, text)
	}
}

// await polls until f succeeds, and fails the test where that takes very long.
func (g *gateway) await(what string, f func() error) time.Duration {
	g.t.Helper()
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > 60*time.Second {
			g.t.Fatalf("%s: waited too long for %s: %v", g.name, what, err)
		}
		<-tick.C
	}
}

// put makes the daemon do what is desired, and leads the prefixes of its peers into the device.
func (g *gateway) put(want Desired) int {
	g.t.Helper()
	want.Node = g.name
	changes, err := g.apply(context.Background(), want)
	if err != nil {
		g.t.Fatalf("%s: %v", g.name, err)
	}
	g.do(func() error {
		interfaces, _, err := listInterfaces(DefaultDevice)
		if err != nil {
			return err
		}
		for _, p := range want.Peers {
			name := DefaultDevice
			for _, i := range interfaces {
				if i.peer == p.Node {
					name = i.name
				}
			}
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := errors.Join(netlink.LinkSetMTU(l, topology.IPsecMTU), netlink.LinkSetUp(l)); err != nil { // as the driver does
				return err
			}
			for _, prefix := range p.Prefixes {
				dst := netlink.NewIPNet(prefix.Addr().AsSlice())
				dst.Mask = maskOf(prefix)
				if err := netlink.RouteReplace(&netlink.Route{Dst: dst, LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK}); err != nil {
					return fmt.Errorf("route %v: %w", prefix, err)
				}
			}
		}
		return nil
	})
	return changes
}

// awaitUp waits until the tunnel to peer is up.
func (g *gateway) awaitUp(peer string) time.Duration {
	g.t.Helper()
	return g.await("the tunnel to "+peer, func() error {
		r, err := g.report(context.Background())
		if err == nil && !r.Peers[peer].Up {
			err = fmt.Errorf("it is %+v; %s", r.Peers[peer], r.Problem)
		}
		return err
	})
}

// awaitCause waits until the report names a cause with these words for peer.
func (g *gateway) awaitCause(peer, words string) {
	g.t.Helper()
	g.await("a cause that says "+words, func() error {
		r, err := g.report(context.Background())
		if err == nil && !strings.Contains(r.Peers[peer].Cause, words) {
			err = fmt.Errorf("it is %+v; %s", r.Peers[peer], r.Problem)
		}
		return err
	})
}

// ping sends count echo requests and returns how many were answered.
func (g *gateway) ping(count int, args ...string) string {
	g.t.Helper()
	var out []byte
	g.do(func() error {
		var err error
		out, err = exec.Command("ping", append([]string{"-q", "-c", fmt.Sprint(count), "-i", "0.02", "-W", "5"}, args...)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("ping %v: %w: %s", args, err, out)
		}
		return err
	})
	return string(out)
}

func endpoint(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

func addresses(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// tryPing sends one echo request.
func (g *gateway) tryPing(args ...string) (text string, err error) {
	g.do(func() error {
		var out []byte
		out, err = exec.Command("ping", append([]string{"-c", "1", "-W", "1"}, args...)...).CombinedOutput()
		text = string(out)
		return nil
	})
	return text, err
}

func (g *gateway) awaitPing(args ...string) {
	g.t.Helper()
	g.await(fmt.Sprint("an answer to ping ", args), func() error {
		out, err := g.tryPing(args...)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// pinging sends 50 echo requests a second until the function that it returns is called, which returns how many were
// lost: those without an answer that came before one with. What was under way at the end is not lost.
func (g *gateway) pinging(args ...string) (stop func() (lost, of int)) {
	g.t.Helper()
	cmd := exec.Command("ping", append([]string{"-i", "0.02"}, args...)...)
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	g.do(cmd.Start)
	return func() (lost, of int) {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // its status says no more than its words
		answered := 0
		for _, m := range sequence.FindAllStringSubmatch(out.String(), -1) {
			answered++
			of = max(of, int(number(m[1])))
		}
		if of == 0 {
			g.t.Errorf("%s: ping %v had no answer at all: %s", g.name, args, out)
		}
		return of - answered, of
	}
}

// sequence is the number of an answered echo request.
var sequence = regexp.MustCompile(`(?m)bytes from .* icmp_seq=(\d+)`)

func (g *gateway) addAddress(cidr string) {
	g.t.Helper()
	g.do(func() error {
		l, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, addr)
	})
}

// numbers are the largest of what charon runs; each renewal takes the next one.
type numbers struct{ ike, child int }

// associations reads the numbers of what runs.
func (g *gateway) associations() (n numbers) {
	g.t.Helper()
	v, err := vici.Dial(context.Background(), filepath.Join(g.dir, viciSocket))
	if err != nil {
		g.t.Fatal(err)
	}
	defer v.Close()
	_, err = v.Stream(context.Background(), "list-sas", "list-sa", nil, func(m *vici.Message) {
		for _, name := range m.Keys() {
			ike := m.Section(name)
			n.ike = max(n.ike, int(number(ike.Get("uniqueid"))))
			children := ike.Section("child-sas")
			for _, key := range children.Keys() {
				n.child = max(n.child, int(number(children.Section(key).Get("uniqueid"))))
			}
		}
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// killCharon kills the daemon's charon.
func (g *gateway) killCharon() {
	g.t.Helper()
	if err := syscall.Kill(g.charonPID(), syscall.SIGKILL); err != nil {
		g.t.Fatal(err)
	}
}

// charonPID is the process of the daemon's charon, which is its only child.
func (g *gateway) charonPID() int {
	g.t.Helper()
	pid := g.cmd.Process.Pid
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		g.t.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			return int(number(word))
		}
	}
	g.t.Fatalf("process %d has no child", pid)
	return 0
}
