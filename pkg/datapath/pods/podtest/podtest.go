// Package podtest makes pods for tests: network namespaces behind veths, as the usual CNI plugins lay them out.
package podtest

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Pod is a namespace with a device eth0 in it.
type Pod struct {
	// Host is the host's end of the veth.
	Host netlink.Link
	// MAC of eth0.
	MAC net.HardwareAddr
	// Inside configures the pod's namespace.
	Inside *netlink.Handle
	// Namespace is kept open until Delete or the end of the test.
	Namespace netns.NsHandle
}

// PointToPoint makes a pod as the ptp plugin does: a route to each address by the host's end of the veth, named name.
func PointToPoint(t *testing.T, name string, addrs ...string) *Pod {
	t.Helper()
	p := Bare(t, name, addrs...)
	for _, a := range addrs {
		prefix := hostPrefix(t, a)
		try(t, "route to "+a, netlink.RouteReplace(&netlink.Route{
			LinkIndex: p.Host.Attrs().Index, Dst: prefix, Scope: netlink.SCOPE_LINK,
		}))
	}
	return p
}

// OnBridge makes a pod as the bridge plugin does.
func OnBridge(t *testing.T, bridge netlink.Link, name string, addrs ...string) *Pod {
	t.Helper()
	p := Bare(t, name, addrs...)
	try(t, "enslave "+name, netlink.LinkSetMaster(p.Host, bridge))
	return p
}

// Bridge makes a Linux bridge that is up and holds addr, such as 10.0.0.1/24.
func Bridge(t *testing.T, name string, addrs ...string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	try(t, "add bridge", netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	l := Link(t, name)
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		try(t, "parse "+a, err)
		addr.Flags = unix.IFA_F_NODAD
		try(t, "add "+a, netlink.AddrAdd(l, addr))
	}
	try(t, "set bridge up", netlink.LinkSetUp(l))
	return l
}

// Bare makes a namespace behind a veth, with addresses inside and no route on the host.
func Bare(t *testing.T, name string, addrs ...string) *Pod {
	t.Helper()
	ns := namespace(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
	try(t, "add veth "+name, netlink.LinkAdd(veth))
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	try(t, "open the pod's namespace", err)
	t.Cleanup(inside.Close)
	eth0, err := inside.LinkByName("eth0")
	try(t, "find eth0", err)
	for _, a := range addrs {
		try(t, "add "+a, inside.AddrAdd(eth0, &netlink.Addr{IPNet: hostPrefix(t, a), Flags: unix.IFA_F_NODAD}))
	}
	try(t, "set eth0 up", inside.LinkSetUp(eth0))
	host := Link(t, name)
	try(t, "set "+name+" up", netlink.LinkSetUp(host))
	return &Pod{Host: Link(t, name), MAC: eth0.Attrs().HardwareAddr, Inside: inside, Namespace: ns}
}

// Delete removes the pod's veth.
func (p *Pod) Delete(t *testing.T) {
	t.Helper()
	try(t, "delete "+p.Host.Attrs().Name, netlink.LinkDel(p.Host))
}

// Link finds a device by name.
func Link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	try(t, "find "+name, err)
	return l
}

// namespace makes a network namespace on a thread that ends at once; the handle keeps it.
func namespace(t *testing.T) netns.NsHandle {
	t.Helper()
	type result struct {
		ns  netns.NsHandle
		err error
	}
	made := make(chan result)
	go func() {
		// Never unlocked, so that the runtime ends the thread.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: os.NewSyscallError("unshare", err)}
			return
		}
		ns, err := netns.Get()
		made <- result{ns, err}
	}()
	r := <-made
	try(t, "make a pod's namespace", r.err)
	t.Cleanup(func() { try(t, "close a pod's namespace", r.ns.Close()) })
	return r.ns
}

func hostPrefix(t *testing.T, addr string) *net.IPNet {
	t.Helper()
	a, err := netip.ParseAddr(addr)
	try(t, "parse "+addr, err)
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func try(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
