// Package pods finds the local pods: the host's ends of veth pairs whose other ends, in other network namespaces, hold
// addresses of this node's pod prefixes.
package pods

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/device"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// Pod is a local pod, or anything else that lives at a pod address behind a veth.
type Pod struct {
	// Name and Index of the host's end of the veth.
	Name  string
	Index int
	// Addrs are the pod's addresses in this node's prefixes, sorted.
	Addrs []netip.Addr
	// MAC is the pod's own.
	MAC net.HardwareAddr
	// GatewayMAC is what the pod sends to: the host end's MAC, or the bridge's where that is a bridge port.
	GatewayMAC net.HardwareAddr
	// MTU of the host's end, in bytes.
	MTU int
	// Reason says why the pod cannot be accelerated; empty where it can.
	Reason string
}

// Inspector says what others have attached to a device that acceleration would bypass; empty where there is nothing.
type Inspector interface {
	Foreign(index int) (reason string, err error)
}

// Discover lists the pods with an address in prefixes, sorted by Index. It enters no namespace: the kernel answers for
// the veths' other ends. A pod that vanishes meanwhile is left out; one that cannot be judged has the error as Reason,
// and the errors come back joined.
func Discover(ctx context.Context, conn *rtnl.Conn, prefixes []netip.Prefix, in Inspector) ([]Pod, error) {
	list, err := device.List(conn, device.OwnNamespace)
	if err != nil {
		return nil, err
	}
	byIndex := make(map[int]device.Device, len(list))
	for _, d := range list {
		byIndex[d.Index] = d
	}
	routes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket for routes: %w", err)
	}
	defer routes.Close()
	local := func(addr netip.Addr) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	d := discovery{conn: conn, routes: routes, local: local, devices: byIndex, namespaces: make(map[int]*namespace), in: in}
	var found []Pod
	var errs []error
	for _, host := range list {
		if host.Kind != "veth" || host.PeerNamespace == device.OwnNamespace || host.Peer == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		pod, err := d.pod(host)
		if err != nil {
			errs = append(errs, fmt.Errorf("look at the pod behind %s: %w", host.Name, err))
		}
		if len(pod.Addrs) > 0 {
			found = append(found, pod)
		}
	}
	slices.SortFunc(found, func(a, b Pod) int { return cmp.Compare(a.Index, b.Index) })
	refuseDuplicates(found)
	return found, errors.Join(errs...)
}

// Behind looks at the pod behind one veth, which Discover would find too, without a list of all devices. master is the
// device that the veth is enslaved to, zero without one; local tells the addresses of this node's prefixes. A veth that
// has none of them behind it gives a Pod without addresses.
func Behind(conn *rtnl.Conn, veth, master device.Device, local func(netip.Addr) bool, in Inspector) (Pod, error) {
	routes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return Pod{}, fmt.Errorf("open a netlink socket for routes: %w", err)
	}
	defer routes.Close()
	d := discovery{
		conn: conn, routes: routes, local: local, namespaces: make(map[int]*namespace), in: in,
		devices: map[int]device.Device{veth.Index: veth, master.Index: master},
	}
	return d.pod(veth)
}

type discovery struct {
	conn       *rtnl.Conn
	routes     *netlink.Handle
	local      func(netip.Addr) bool
	devices    map[int]device.Device
	namespaces map[int]*namespace // by id, asked once each
	in         Inspector
}

// namespace is what the kernel says of another network namespace.
type namespace struct {
	devices map[int]device.Device
	addrs   map[int][]netip.Addr
}

func (d *discovery) pod(host device.Device) (Pod, error) {
	ns, err := d.namespace(host.PeerNamespace)
	if err != nil {
		return Pod{}, err
	}
	peer, ok := ns.devices[host.Peer]
	if !ok {
		return Pod{}, nil // gone since the first list
	}
	pod := Pod{Name: host.Name, Index: host.Index, MAC: peer.MAC, GatewayMAC: host.MAC, MTU: host.MTU}
	for _, addr := range ns.addrs[host.Peer] {
		if d.local(addr) {
			pod.Addrs = append(pod.Addrs, addr)
		}
	}
	if len(pod.Addrs) == 0 {
		return Pod{}, nil
	}
	slices.SortFunc(pod.Addrs, netip.Addr.Compare)
	pod.Reason, err = d.judge(host, peer, &pod)
	if err != nil {
		pod.Reason = err.Error()
	}
	return pod, err
}

// judge says why the pod must be left to the kernel, and takes over the bridge's MAC where there is a bridge.
func (d *discovery) judge(host, peer device.Device, pod *Pod) (string, error) {
	if !host.Up || !peer.Up {
		return "its veth is down", nil
	}
	if peer.XDP {
		// Redirected packets enter the pod behind its driver, where XDP sits.
		return "the pod's own end has an XDP program", nil
	}
	if reason, err := d.in.Foreign(host.Index); reason != "" || err != nil {
		return reason, err
	}
	way := host
	if host.Master != 0 {
		master, ok := d.devices[host.Master]
		if !ok || master.Kind != "bridge" {
			return fmt.Sprintf("its master %s is a %s, not a Linux bridge", master.Name, cmp.Or(master.Kind, "device")), nil
		}
		// Packets to and from the pod pass the bridge's own hooks, too.
		if reason, err := d.in.Foreign(master.Index); reason != "" || err != nil {
			return fmt.Sprintf("of its bridge %s: %s", master.Name, reason), err
		}
		pod.GatewayMAC = master.MAC
		way = master
	}
	for _, addr := range pod.Addrs {
		if reason, err := routeElsewhere(d.routes, addr, way); reason != "" || err != nil {
			return reason, err
		}
	}
	return "", nil
}

func (d *discovery) namespace(id int) (*namespace, error) {
	if ns := d.namespaces[id]; ns != nil {
		return ns, nil
	}
	ns := &namespace{devices: make(map[int]device.Device)}
	list, err := device.List(d.conn, id)
	if err == nil {
		ns.addrs, err = device.Addresses(d.conn, id)
	}
	if errors.Is(err, unix.EINVAL) {
		err = nil // the namespace, and with it the id, has gone since the first list
	}
	if err != nil {
		return nil, err
	}
	for _, peer := range list {
		ns.devices[peer.Index] = peer
	}
	d.namespaces[id] = ns
	return ns, nil
}

// refuseDuplicates leaves pods that share an address, which can be so on one bridge, to the kernel.
func refuseDuplicates(pods []Pod) {
	at := make(map[netip.Addr]*Pod)
	for i := range pods {
		pod := &pods[i]
		if pod.Reason != "" {
			continue
		}
		for _, addr := range pod.Addrs {
			if other := at[addr]; other != nil {
				pod.Reason = fmt.Sprintf("its address %s is also at %s", addr, other.Name)
				other.Reason = fmt.Sprintf("its address %s is also at %s", addr, pod.Name)
			}
			at[addr] = pod
		}
	}
}
