package cni

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/accel/device"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// collect is GC.
func (p *Plugin) collect(log *slog.Logger) error {
	o, err := open(p.root(), p.tcx())
	var not *unable
	if errors.As(err, &not) {
		log.Debug("nothing to collect", "reason", not.reason)
		return nil
	}
	if err != nil {
		return err
	}
	defer o.close()
	return o.sweep(true)
}

// sweep removes pins whose devices have gone, and entries of raven_pods whose devices have gone or, where it looks into
// the pods too, do not hold the address any more.
func (o *objects) sweep(intoPods bool) error {
	lock, err := o.lockTree(unix.LOCK_EX, patientWait)
	if err != nil {
		return err
	}
	defer lock.Close()
	conn, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	// Entries come before devices, so that a pod which the daemon adds meanwhile is not taken for one that has gone.
	entries, err := o.entries()
	if err != nil {
		return err
	}
	list, err := device.List(conn, device.OwnNamespace)
	if err != nil {
		return err
	}
	devices := make(map[int]device.Device, len(list))
	for _, d := range list {
		devices[d.Index] = d
	}
	errs := []error{o.sweepPins()}
	if o.attacher.Clsact {
		errs = append(errs, o.attacher.ForgetMarkers(func(index int) bool { return devices[index].Index != 0 }))
	}
	inside := make(map[int]map[int][]netip.Addr) // by namespace, then device
	for addr, e := range entries {
		host, stands := devices[int(e.Ifindex)]
		if stands && intoPods {
			stands, err = livesBehind(conn, host, addr, inside)
			errs = append(errs, err)
		}
		if !stands {
			errs = append(errs, o.deleteEntry(addr, e))
		}
	}
	return errors.Join(errs...)
}

// livesBehind is true where the other end of a veth holds the address. What cannot be found out counts as true.
func livesBehind(conn *rtnl.Conn, host device.Device, addr netip.Addr, inside map[int]map[int][]netip.Addr) (bool, error) {
	if host.Kind != "veth" || host.PeerNamespace == device.OwnNamespace {
		return false, nil
	}
	addrs, known := inside[host.PeerNamespace]
	if !known {
		var err error
		addrs, err = device.Addresses(conn, host.PeerNamespace)
		if errors.Is(err, unix.EINVAL) {
			return false, nil // the namespace has gone, and the device goes with it
		}
		if err != nil {
			return true, err
		}
		inside[host.PeerNamespace] = addrs
	}
	return slices.Contains(addrs[host.Peer], addr), nil
}

// sweepPins unpins links whose devices have gone. Such a link never comes back.
func (o *objects) sweepPins() error {
	hooks, err := o.attacher.Hooks()
	errs := []error{err}
	for _, h := range hooks {
		if h.Program != pintree.FromPod {
			continue // devices of the agent's, which it knows better
		}
		state, err := o.attacher.State(h)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if state.Device == h.Index {
			continue
		}
		if err := os.Remove(attach.LinkPath(o.tree, h)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("unpin the link of device %d, which has gone: %w", h.Index, err))
		}
	}
	return errors.Join(errs...)
}
