package netns

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace without a name: it lives until the test that made it ends.
type Namespace struct{ fd int }

// FD is the open handle of the namespace, for netlink.NsFd and the like. It is closed when the test ends.
func (n *Namespace) FD() int { return n.fd }

// Current is the network namespace of the calling thread.
func Current(t *testing.T) *Namespace {
	t.Helper()
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open the current network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			t.Errorf("close a network namespace: %v", err)
		}
	})
	return &Namespace{fd: fd}
}

// New makes another network namespace with loopback up. Call it in Run, whose thread it returns to.
func New(t *testing.T) *Namespace {
	t.Helper()
	var made *Namespace
	inside(t, Current(t), func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() {
		if err := loopbackUp(); err != nil {
			t.Fatal(err)
		}
		made = Current(t)
	})
	return made
}

// Do runs f in the namespace, on the calling thread, which must be that of Run. /proc/sys/net follows; mounts, and so
// /sys and /sys/fs/bpf, stay those of the test. t.FailNow may be called in f.
func (n *Namespace) Do(t *testing.T, f func()) {
	t.Helper()
	inside(t, Current(t), func() error { return unix.Setns(n.fd, unix.CLONE_NEWNET) }, f)
}

// Go runs f in the namespace on a thread of its own, beside the test's, and delivers its error. Only the network is the
// namespace's: mounts are those of the process, so f keeps to sockets.
func (n *Namespace) Go(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with f
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter a network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return done
}

// inside enters a namespace, runs f and returns to home even where f ends the test.
func inside(t *testing.T, home *Namespace, enter func() error, f func()) {
	t.Helper()
	if err := enter(); err != nil {
		t.Fatalf("enter a network namespace: %v", err)
	}
	defer func() {
		if err := unix.Setns(home.fd, unix.CLONE_NEWNET); err != nil {
			// The thread is locked and ends with the test; nothing of the machine's can be reached meanwhile.
			panic(fmt.Sprintf("return to the test's network namespace: %v", err))
		}
	}()
	f()
}

// End is one end of a veth pair.
type End struct {
	In   *Namespace
	Name string
	// Addresses in CIDR notation; IPv6 ones, the link-local one too, come without duplicate detection and serve at once.
	Addresses []string
}

// Veth joins two namespaces by a veth pair with both ends up, addressed and Ready.
func Veth(t *testing.T, a, b End) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.Name
	attrs.Namespace = netlink.NsFd(a.In.fd)
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: b.Name, PeerNamespace: netlink.NsFd(b.In.fd)}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatalf("make a veth pair %s, %s: %v", a.Name, b.Name, err)
	}
	for _, e := range []End{a, b} {
		e.In.Do(t, func() { e.configure(t) })
	}
	for _, e := range []End{a, b} {
		e.In.Do(t, func() { Ready(t, e.Name) })
	}
}

func (e End) configure(t *testing.T) {
	t.Helper()
	l, err := netlink.LinkByName(e.Name)
	if err != nil {
		t.Fatalf("look up device %s: %v", e.Name, err)
	}
	const detection = "/proc/sys/net/ipv6/conf/%s/accept_dad"
	if err := os.WriteFile(fmt.Sprintf(detection, e.Name), []byte("0"), 0); err != nil {
		t.Fatalf("switch duplicate detection off: %v", err)
	}
	for _, text := range e.Addresses {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatalf("parse address %s: %v", text, err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, addr); err != nil {
			t.Fatalf("add address %s to %s: %v", text, e.Name, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatalf("set %s up: %v", e.Name, err)
	}
}
