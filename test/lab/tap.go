package lab

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tap is a pair of programs at a device, one for each direction, as a stranger to Raven attaches them: they count the
// Echo's TCP and UDP packets and let them go on.
type Tap struct {
	host            *Host
	in, out         *ebpf.Map
	inRun, outRun   *ebpf.Program
	inLink, outLink link.Link // tcx
	qdisc           *netlink.Clsact
	filters         []netlink.Filter // in somebody else's clsact
}

// TapCount is how many packets came into the host by the device, and how many left by it.
type TapCount struct{ In, Out uint64 }

// Sub is what was counted since before.
func (c TapCount) Sub(before TapCount) TapCount {
	return TapCount{c.In - before.In, c.Out - before.Out}
}

// Tap begins to count by clsact filters at a device of the host. Close ends it.
func (h *Host) Tap(dev string) (*Tap, error) {
	return h.tap(dev, func(t *Tap, index int) error {
		qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		}}
		err := h.nl.QdiscAdd(qdisc)
		there := errors.Is(err, unix.EEXIST) // as where Raven attaches by clsact; each owner then takes its own filters away
		switch {
		case err == nil:
			t.qdisc = qdisc
		case !there:
			return fmt.Errorf("add clsact: %w", err)
		}
		for parent, program := range map[uint32]*ebpf.Program{
			netlink.HANDLE_MIN_INGRESS: t.inRun, netlink.HANDLE_MIN_EGRESS: t.outRun,
		} {
			filter := &netlink.BpfFilter{
				Fd: program.FD(), Name: "stranger", DirectAction: true,
				FilterAttrs: netlink.FilterAttrs{
					LinkIndex: index, Parent: parent, Handle: 1, Priority: 10, Protocol: unix.ETH_P_ALL,
				},
			}
			if err := h.nl.FilterAdd(filter); err != nil {
				return fmt.Errorf("add a filter: %w", err)
			}
			if there {
				t.filters = append(t.filters, filter)
			}
		}
		return nil
	})
}

// TapTCX is Tap by tcx links.
func (h *Host) TapTCX(dev string) (*Tap, error) {
	return h.tap(dev, func(t *Tap, index int) error {
		return h.Do(func() (err error) {
			t.inLink, err = link.AttachTCX(link.TCXOptions{
				Interface: index, Program: t.inRun, Attach: ebpf.AttachTCXIngress,
			})
			if err == nil {
				t.outLink, err = link.AttachTCX(link.TCXOptions{
					Interface: index, Program: t.outRun, Attach: ebpf.AttachTCXEgress,
				})
			}
			return err
		})
	})
}

func (h *Host) tap(dev string, attach func(t *Tap, index int) error) (*Tap, error) {
	device, err := h.Link(dev)
	if err != nil {
		return nil, err
	}
	t := &Tap{host: h}
	if t.in, t.inRun, err = newCounter(); err == nil {
		t.out, t.outRun, err = newCounter()
	}
	if err == nil {
		err = attach(t, device.Attrs().Index)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tap %s on %s: %w", dev, h.Name, err), t.Close())
	}
	return t, nil
}

// Count reads the counters.
func (t *Tap) Count() (c TapCount, err error) {
	err = errors.Join(t.in.Lookup(uint32(0), &c.In), t.out.Lookup(uint32(0), &c.Out))
	if err != nil {
		return c, fmt.Errorf("read the counters of a tap on %s: %w", t.host.Name, err)
	}
	return c, nil
}

// Close takes the programs off, with their qdisc where this made it.
func (t *Tap) Close() (err error) {
	for _, f := range t.filters {
		if delErr := t.host.nl.FilterDel(f); delErr != nil {
			err = errors.Join(err, fmt.Errorf("remove a filter on %s: %w", t.host.Name, delErr))
		}
	}
	if t.qdisc != nil {
		if delErr := t.host.nl.QdiscDel(t.qdisc); delErr != nil {
			err = errors.Join(err, fmt.Errorf("remove clsact on %s: %w", t.host.Name, delErr))
		}
	}
	for _, l := range []link.Link{t.inLink, t.outLink} {
		if l != nil { // the end of a link comes some time after its last user, that of an attachment at once
			err = errors.Join(err, l.Detach(), l.Close())
		}
	}
	return errors.Join(err, t.inRun.Close(), t.outRun.Close(), t.in.Close(), t.out.Close())
}

// newCounter makes a program and the array whose only element it counts in. Offsets are those of Ethernet, IPv4 without
// options and IPv6 without extension headers.
func newCounter() (*ebpf.Map, *ebpf.Program, error) {
	const ethernet, next, goOn = 14, "next", -1 // TC_ACT_UNSPEC
	counter, err := ebpf.NewMap(&ebpf.MapSpec{Name: "stranger", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, nil, fmt.Errorf("make a counter: %w", err)
	}
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadAbs(12, asm.Half),
		asm.JEq.Imm(asm.R0, unix.ETH_P_IP, "ip4"),
		asm.JEq.Imm(asm.R0, unix.ETH_P_IPV6, "ip6"),
		asm.Ja.Label(next),
	}
	for _, f := range []struct {
		label           string
		protocol, ports int32
	}{{"ip4", 9, 20}, {"ip6", 6, 40}} {
		code = append(code,
			asm.LoadAbs(ethernet+f.protocol, asm.Byte).WithSymbol(f.label),
			asm.JEq.Imm(asm.R0, TCP, f.label+"ports"),
			asm.JNE.Imm(asm.R0, UDP, next),
			asm.LoadAbs(ethernet+f.ports, asm.Half).WithSymbol(f.label+"ports"),
			asm.JEq.Imm(asm.R0, EchoPort, "count"),
			asm.LoadAbs(ethernet+f.ports+2, asm.Half),
			asm.JEq.Imm(asm.R0, EchoPort, "count"),
			asm.Ja.Label(next),
		)
	}
	code = append(code,
		asm.StoreImm(asm.RFP, -4, 0, asm.Word).WithSymbol("count"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, counter.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, next),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, goOn).WithSymbol(next),
		asm.Return(),
	)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "stranger", Type: ebpf.SchedCLS, License: "GPL", Instructions: code,
	})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("load a counting program: %w", err), counter.Close())
	}
	return counter, program, nil
}
