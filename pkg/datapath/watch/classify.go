package watch

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/host"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// From linux/netconf.h: the attribute that names the device, and its value for conf/all.
const (
	attrNetconfDevice = 1
	netconfAll        = -1
)

// device is what an index meant when the last event about it came.
type device struct{ name, kind string }

func (w *Watcher) ours(index int) bool { return host.Ours(w.devices[index].name) }

func (w *Watcher) trackedIndex(index int) bool { return (*w.tracked.Load())[index] }

// classify says which signals a message is worth. In doubt it is: a look that finds nothing is cheap, but the churn of
// pods' devices, routes and neighbours must not keep the appliers busy.
func (w *Watcher) classify(typ uint16, p []byte) (signals []*damper) {
	worth := func(signal *damper, is bool) {
		if is {
			signals = append(signals, signal)
		}
	}
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		worth(w.kernel, w.link(typ, p))
		worth(w.links, true)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		worth(w.kernel, w.address(p))
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		own, matters := w.route(p)
		worth(w.routes, own)
		worth(w.kernel, matters)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		worth(w.routes, ourRule(p))
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		worth(w.kernel, w.neighbour(p))
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		worth(w.kernel, w.netconf(p))
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER, unix.RTM_NEWTCLASS, unix.RTM_DELTCLASS,
		unix.RTM_NEWCHAIN, unix.RTM_DELCHAIN:
		worth(w.links, true)
	}
	return signals
}

// link also keeps the list of devices. Messages of the bridge family tell of ports: a device that left a bridge is not
// gone.
func (w *Watcher) link(typ uint16, p []byte) (kernel bool) {
	if len(p) < unix.SizeofIfInfomsg {
		return false
	}
	index := int(binary.NativeEndian.Uint32(p[4:]))
	kernel = w.ours(index) || w.trackedIndex(index)
	if p[0] == unix.AF_BRIDGE {
		return kernel
	}
	d := w.devices[index]
	for a := range rtnl.Attributes(p[unix.SizeofIfInfomsg:]) {
		switch a.Type {
		case unix.IFLA_IFNAME:
			d.name = a.Text()
		case unix.IFLA_LINKINFO:
			for info := range rtnl.Attributes(a.Value) {
				if info.Type == unix.IFLA_INFO_KIND {
					d.kind = info.Text()
				}
			}
		}
	}
	w.devices[index] = d
	kernel = kernel || w.ours(index) // a device that came, or was renamed to one of our names
	if typ == unix.RTM_DELLINK {
		delete(w.devices, index)
	}
	return kernel
}

// address: any but a link-local one matters, since sources are chosen among the node's and the local pods' addresses.
func (w *Watcher) address(p []byte) bool {
	if len(p) < unix.SizeofIfAddrmsg {
		return false
	}
	scope, index := p[3], int(binary.NativeEndian.Uint32(p[4:]))
	return scope < unix.RT_SCOPE_LINK || w.ours(index)
}

// route: our own are all of our tables. Those of the main table matter that may lead to members; the routes to single pods
// may not.
func (w *Watcher) route(p []byte) (own, matters bool) {
	if len(p) < unix.SizeofRtMsg || binary.NativeEndian.Uint32(p[8:])&unix.RTM_F_CLONED != 0 {
		return false, false
	}
	table, out := uint32(p[4]), 0
	for a := range rtnl.Attributes(p[unix.SizeofRtMsg:]) {
		switch a.Type {
		case unix.RTA_TABLE:
			table = a.Uint32()
		case unix.RTA_OIF:
			out = int(a.Uint32())
		}
	}
	switch table {
	case datapath.TableRemote, datapath.TableInRegion:
		return true, false
	case unix.RT_TABLE_MAIN:
		return false, w.trackedIndex(out) || w.devices[out].kind != "veth"
	}
	return false, false
}

func ourRule(p []byte) bool {
	r, ok := rtnl.ParseRule(p)
	return ok && r.Priority == datapath.RulePriority && (r.Table == datapath.TableRemote || r.Table == datapath.TableInRegion)
}

func (w *Watcher) neighbour(p []byte) bool {
	return len(p) >= unix.SizeofNdMsg && w.ours(int(binary.NativeEndian.Uint32(p[4:])))
}

// netconf tells of forwarding, rp_filter and the like. Its header is one byte of family, padded.
func (w *Watcher) netconf(p []byte) bool {
	const headerBytes = 4
	if len(p) < headerBytes {
		return false
	}
	for a := range rtnl.Attributes(p[headerBytes:]) {
		if a.Type == attrNetconfDevice {
			index := int(int32(a.Uint32()))
			return index == netconfAll || w.ours(index)
		}
	}
	return false
}
