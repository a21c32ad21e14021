package cni

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/accel/device"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
	"github.com/ravencni/raven/pkg/datapath/pods"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// attachment is a pod's interface as the kernel has it, with the means to act on it.
type attachment struct {
	*objects
	conn    *rtnl.Conn
	sandbox *sandbox
	veth    device.Device
	in      *attach.Inspection
	tree    *os.File // locked, shared
}

// attachment opens everything that concerns one pod's interface, and waits for other runs for as long as said. The caller
// closes it.
func (p *Plugin) attachment(args *skel.CmdArgs, wait time.Duration) (a *attachment, err error) {
	tcx := p.tcx()
	a = &attachment{}
	defer func() {
		if err != nil {
			a.close()
			a = nil
		}
	}()
	if a.objects, err = open(p.root(), tcx); err != nil {
		return a, err
	}
	if a.sandbox, err = p.sandbox(args.Netns, wait); err != nil {
		return a, err
	}
	if a.conn, err = rtnl.Open(); err != nil {
		return a, err
	}
	if a.veth, err = a.sandbox.veth(a.conn, args.IfName); err != nil {
		return a, err
	}
	if a.tree, err = a.lockTree(unix.LOCK_SH, wait); err != nil {
		return a, err
	}
	own := map[ebpf.ProgramID]bool{a.id: true}
	if state, err := a.attacher.State(hook(a.veth.Index)); err == nil {
		own[state.Program] = true
	}
	a.in, err = attach.InspectOnly(a.conn, tcx, own, a.veth.Index, a.veth.Master)
	return a, err
}

func (a *attachment) close() {
	if a.tree != nil {
		_ = a.tree.Close()
	}
	if a.conn != nil {
		_ = a.conn.Close()
	}
	if a.sandbox != nil {
		a.sandbox.close()
	}
	if a.objects != nil {
		a.objects.close()
	}
}

// judge looks at the pod as the daemon does. It is *unable where the pod must be left to the kernel.
func (a *attachment) judge() (pods.Pod, error) {
	var master device.Device
	if a.veth.Master != 0 {
		var err error
		if master, err = device.Get(a.conn, a.veth.Master); err != nil {
			return pods.Pod{}, err
		}
	}
	pod, err := pods.Behind(a.conn, a.veth, master, a.local, a.in)
	switch {
	case err != nil:
		return pod, err
	case len(pod.Addrs) == 0:
		return pod, unablef("none of its addresses is in this node's pod prefixes")
	case pod.Reason != "":
		return pod, unablef("%s", pod.Reason)
	}
	for _, addr := range pod.Addrs {
		e, there, err := a.entry(addr)
		if err != nil {
			return pod, err
		}
		if there && int(e.Ifindex) != pod.Index && holds(a.conn, int(e.Ifindex), addr) {
			return pod, unablef("its address %s is also at device %d", addr, e.Ifindex)
		}
	}
	return pod, nil
}

// holds is true where the other end of a veth holds an address.
func holds(conn *rtnl.Conn, index int, addr netip.Addr) bool {
	host, err := device.Get(conn, index)
	if err != nil || host.Kind != "veth" || host.PeerNamespace == device.OwnNamespace {
		return false
	}
	addrs, err := device.Addresses(conn, host.PeerNamespace)
	if err != nil {
		return false
	}
	for _, a := range addrs[host.Peer] {
		if a == addr {
			return true
		}
	}
	return false
}

// accelerate attaches the program to the pod's veth and makes the pod known to the others.
func (p *Plugin) accelerate(_ *config, args *skel.CmdArgs) error {
	wait := addWait
	if p.handed != nil {
		wait = patientWait
	}
	a, err := p.attachment(args, wait)
	if err != nil {
		return err
	}
	defer a.close()
	pod, err := a.judge()
	if err != nil {
		return errors.Join(err, a.withdraw())
	}
	// As the daemon does it: the map first, then the program.
	entry := pintree.EntryOf(pod)
	for _, addr := range pod.Addrs {
		if err := a.pods.Put(pintree.AddressOf(addr), entry); err != nil {
			return errors.Join(fmt.Errorf("put %s into the map of pods, which holds at most %d: %w", addr, a.pods.MaxEntries(), err),
				a.withdraw())
		}
	}
	if err := a.deleteEntriesOf(a.veth.Index, pod.Addrs...); err != nil {
		return err
	}
	if _, err := a.attacher.TC(a.program, hook(a.veth.Index), a.in); err != nil {
		return errors.Join(err, a.withdraw())
	}
	if !a.stands() {
		a.undo(a.veth.Index)
		return unablef("Raven was removed from this node at the same time")
	}
	return nil
}

// withdraw takes back what an earlier ADD, or half of this one, did.
func (a *attachment) withdraw() error {
	return errors.Join(a.deleteEntriesOf(a.veth.Index), a.attacher.Leave(hook(a.veth.Index), a.in))
}

// forget removes what the plugin or the daemon made for a pod.
func (p *Plugin) forget(c *config, args *skel.CmdArgs) error {
	a, err := p.attachment(args, patientWait)
	if err == nil {
		defer a.close()
		return a.withdraw()
	}
	// The interface, or the namespace with it, has gone. What the pod had is known by its addresses, if at all.
	o, err := open(p.root(), p.tcx())
	var not *unable
	if errors.As(err, &not) {
		return nil // nothing that this plugin could have made
	}
	if err != nil {
		return err
	}
	defer o.close()
	addrs, mac := c.earlier(args.IfName)
	var errs []error
	for _, addr := range addrs {
		e, there, err := o.entry(addr)
		errs = append(errs, err)
		// The address may be another pod's by now.
		if there && len(mac) == len(e.Mac) && pintree.MAC(mac) == e.Mac {
			errs = append(errs, o.deleteEntry(addr, e))
		}
	}
	return errors.Join(append(errs, o.sweep(false))...)
}

// Check compares what there is with what an ADD would make of the pod now, and names the first difference.
func (p *Plugin) Check(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if len(c.PrevResult) == 0 {
		return types.NewError(types.ErrInvalidNetworkConfig, "CHECK needs the result of the ADD", "")
	}
	log := p.logger(c, "CHECK", args)
	err = p.guard(func() error { return p.check(args) })
	var not *unable
	if errors.As(err, &not) || errors.Is(err, errGone) {
		log.Debug("nothing to check", "reason", err)
		return nil
	}
	if err != nil {
		return types.NewError(codeDamaged, "the pod is not accelerated as it should be (the agent repairs that when it runs)", err.Error())
	}
	return nil
}

func (p *Plugin) check(args *skel.CmdArgs) error {
	a, err := p.attachment(args, patientWait)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.checkProgram(); err != nil {
		// A pod that must be left to the kernel has no program.
		if _, not := a.judge(); not != nil {
			return not
		}
		return err
	}
	pod, err := a.judge()
	if err != nil {
		return err
	}
	want := pintree.EntryOf(pod)
	for _, addr := range pod.Addrs {
		e, there, err := a.entry(addr)
		switch {
		case err != nil:
			return err
		case !there:
			return fmt.Errorf("its address %s is missing in the map of pods", addr)
		case e != want:
			return fmt.Errorf("its address %s is in the map of pods with %+v and not with %+v", addr, e, want)
		}
	}
	return nil
}

func (a *attachment) checkProgram() error {
	runs := a.in.OnClsact(a.veth.Index)
	if !a.attacher.Clsact {
		state, err := a.attacher.State(hook(a.veth.Index))
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the program is not attached to %s", a.veth.Name)
		}
		if err != nil {
			return err
		}
		if state.Device != a.veth.Index {
			return fmt.Errorf("the program was detached from %s", a.veth.Name)
		}
		runs = state.Program
	}
	switch runs {
	case a.id:
		return nil
	case 0:
		return fmt.Errorf("the program is not attached to %s", a.veth.Name)
	}
	return fmt.Errorf("at %s the program with number %d runs, and number %d is pinned", a.veth.Name, runs, a.id)
}
