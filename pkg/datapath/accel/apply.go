package accel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/accel/device"
	"github.com/ravencni/raven/pkg/datapath/pods"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/topology"
)

// accelerate loads, fills the maps, and only then attaches. It fails with *unavailable where the kernel cannot.
func (a *Applier) accelerate(ctx context.Context, plan *topology.Plan, host datapath.Host) error {
	if err := a.load(a.wanted(plan, host)); err != nil {
		return err
	}
	config, err := configOf(plan, host, a.options.HandshakesPerSecond)
	if err != nil {
		return err
	}
	conn, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()

	// What is there is listed before the pods are, so that a pod which the CNI plugin adds meanwhile is not taken for one
	// that has gone.
	existing, err := a.existing()
	if err != nil {
		return err
	}
	in, err := attach.Inspect(conn, attach.HaveTCX(), existing.programs)
	if err != nil {
		return err
	}
	around, err := surroundingsOf(conn, host)
	if err != nil {
		return err
	}
	config.OverlayIfindex = uint32(around.overlay.Index)
	if attach.HaveTCX() {
		a.devices = slices.Collect(maps.Keys(around.devices))
	}
	local, podErr := pods.Discover(ctx, conn, plan.LocalPrefixes, in)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.logPods(local)
	a.pods = local

	errs := []error{podErr, a.fill(plan, host, around, existing.pods, config)}
	if ctx.Err() != nil {
		return errors.Join(errs...)
	}
	errs = append(errs, a.adoptOldTrees())
	errs = append(errs, a.attach(a.hooks(plan, host, around, in), existing.hooks, in))
	return errors.Join(append(errs, a.removeOldTrees())...)
}

// wanted lists the programs that this node runs.
func (a *Applier) wanted(plan *topology.Plan, host datapath.Host) []wantedProgram {
	list := []wantedProgram{{name: FromPod}, {name: FromOverlay}}
	if tunnels := host.Tunnels(); len(tunnels) > 0 {
		flag := func(set bool) uint8 {
			if set {
				return 1
			}
			return 0
		}
		list = append(list, wantedProgram{FromTunnel, map[string]any{
			"raven_tunnel_ethernet": flag(tunnels[0].Ethernet), "raven_tunnel_xfrm": flag(tunnels[0].Decrypts),
		}})
	}
	if usesUnderlay(plan) || host.Tunnel.VXLAN.VNI != 0 {
		list = append(list, wantedProgram{name: FromUnderlay})
	}
	if a.options.XDP {
		list = append(list, wantedProgram{name: XDPUnderlay})
	}
	return list
}

// usesUnderlay says whether packets that are Raven's come in by the underlay in a form that a program takes.
func usesUnderlay(plan *topology.Plan) bool {
	return usesDirect(plan) || plan.Overlay != nil && plan.Overlay.Underlay.Unmap().Is4()
}

func usesDirect(plan *topology.Plan) bool {
	for _, nh := range plan.NextHops {
		if nh.Kind == topology.KindDirect {
			return true
		}
	}
	return false
}

// existing is what was there before this pass.
type existing struct {
	pods     map[address]podEntry
	hooks    []attach.Hook
	programs map[ebpf.ProgramID]bool // all of ours, of any ABI
}

func (a *Applier) existing() (e existing, err error) {
	if e.pods, err = readMap[address, podEntry](a.maps[mapPods]); err != nil {
		return e, err
	}
	trees, err := a.trees()
	if err != nil {
		return e, err
	}
	e.programs = make(map[ebpf.ProgramID]bool)
	for _, tree := range trees {
		at := &attach.Attacher{Root: tree}
		hooks, err := at.Hooks()
		if err != nil {
			return e, err
		}
		e.hooks = append(e.hooks, hooks...)
		ids, err := at.Programs()
		if err != nil {
			return e, err
		}
		for id := range ids {
			e.programs[id] = true
		}
	}
	for _, p := range a.programs {
		e.programs[p.id] = true
	}
	return e, nil
}

// logPods logs what changed in what a person may wonder about: pods that are not accelerated.
func (a *Applier) logPods(now []pods.Pod) {
	before := make(map[int]string, len(a.pods))
	for _, p := range a.pods {
		before[p.Index] = p.Reason
	}
	for _, p := range now {
		if old, known := before[p.Index]; known && old == p.Reason || !known && p.Reason == "" {
			continue
		}
		if p.Reason == "" {
			a.options.Logger.Info("pod is accelerated again", "device", p.Name, "addresses", p.Addrs)
			continue
		}
		a.options.Logger.Info("pod is not accelerated", "device", p.Name, "addresses", p.Addrs, "reason", p.Reason)
	}
}

func surroundingsOf(conn *rtnl.Conn, host datapath.Host) (surroundings, error) {
	list, err := device.List(conn, device.OwnNamespace)
	if err != nil {
		return surroundings{}, err
	}
	around := surroundings{devices: make(map[int]device.Device, len(list)), host: host}
	for _, d := range list {
		around.devices[d.Index] = d
		if d.Name == datapath.OverlayDevice {
			around.overlay = d
		}
	}
	around.onLink = onLink
	return around, nil
}

// oldTrees lists the trees of other ABIs.
func (a *Applier) oldTrees() ([]string, error) {
	trees, err := a.trees()
	own := TreePath(a.options.PinRoot)
	return slices.DeleteFunc(trees, func(tree string) bool { return tree == own }), err
}

// adoptOldTrees takes over the attachments of other ABIs, so that each is replaced without a gap.
func (a *Applier) adoptOldTrees() error {
	trees, err := a.oldTrees()
	for _, tree := range trees {
		err = errors.Join(err, a.attacher.Adopt(tree))
	}
	return err
}

// removeOldTrees removes the trees of other ABIs once nothing is attached by them. What could not be adopted keeps its
// tree, and with it running, until the next pass.
func (a *Applier) removeOldTrees() error {
	trees, err := a.oldTrees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		if hooks, err := (&attach.Attacher{Root: tree}).Hooks(); err != nil || len(hooks) > 0 {
			return errors.Join(err, fmt.Errorf("the pinned tree %s of another version stays: %d attachments left in it", tree, len(hooks)))
		}
		if err := os.RemoveAll(tree); err != nil {
			return fmt.Errorf("remove the pinned tree %s of another version: %w", tree, err)
		}
		a.stats.Pins++
		a.options.Logger.Info("took over from another version", "tree", tree)
	}
	return nil
}
