package accel

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/topology"
)

const kindXDP = "xdp"

// hooks lists where programs should run, and where something keeps them away.
func (a *Applier) hooks(plan *topology.Plan, host datapath.Host, around surroundings, in *attach.Inspection) []Attachment {
	tc := "tcx"
	if a.attacher.Clsact {
		tc = "clsact"
	}
	var list []Attachment
	for _, p := range a.pods {
		list = append(list, Attachment{FromPod, p.Name, p.Index, tc, p.Reason})
	}
	ingress := func(program string, name string, index int) {
		at := Attachment{Program: program, Device: name, Index: index, Kind: tc}
		if around.devices[index].Index == 0 {
			return // gone, or never made: the part that makes it says so
		}
		reason, err := in.ForeignIngress(index)
		if err != nil {
			reason = err.Error()
		}
		at.Reason = reason
		list = append(list, at)
	}
	if plan.Overlay != nil {
		ingress(FromOverlay, around.overlay.Name, around.overlay.Index)
	}
	for _, d := range host.Tunnels() {
		ingress(FromTunnel, d.Name, d.Index)
	}
	underlays := host.Underlays
	if !slices.Contains(underlays, host.Underlay) {
		underlays = append([]datapath.Link{host.Underlay}, underlays...)
	}
	var takes []datapath.Link
	if usesUnderlay(plan) {
		takes = underlays
	}
	if host.Tunnel.VXLAN.VNI != 0 {
		takes = append(slices.Clone(takes), host.Outers...)
	}
	for i, u := range takes {
		if !slices.Contains(takes[:i], u) {
			ingress(FromUnderlay, u.Name, u.Index)
		}
	}
	if a.options.XDP {
		// Strangers' VXLAN comes by the underlay, handshakes by the way to the internet; often that is one device.
		for _, u := range append(slices.Clone(underlays), host.Outers...) {
			at := Attachment{XDPUnderlay, u.Name, u.Index, kindXDP, a.foreignXDP(u.Index, around)}
			if around.devices[u.Index].Index != 0 && !slices.Contains(list, at) {
				list = append(list, at)
			}
		}
	}
	slices.SortFunc(list, func(x, y Attachment) int {
		return cmp.Or(cmp.Compare(x.Program, y.Program), cmp.Compare(x.Index, y.Index))
	})
	return list
}

func (a *Applier) foreignXDP(index int, around surroundings) string {
	d := around.devices[index]
	if !d.XDP || uint32(a.programs[XDPUnderlay].id) == d.XDPProgram || a.attacher.RunsXDP(XDPUnderlay, index, d.XDPProgram) {
		return ""
	}
	return fmt.Sprintf("it has another XDP program (number %d)", d.XDPProgram)
}

// attach makes the wanted attachments and removes all others of ours. One that fails costs only itself.
func (a *Applier) attach(wanted []Attachment, listed []attach.Hook, in *attach.Inspection) error {
	var errs []error
	keep := make(map[attach.Hook]bool)
	for i := range wanted {
		w := &wanted[i]
		if w.Reason != "" {
			continue
		}
		hook := attach.Hook{Program: w.Program, Index: w.Index}
		var changed bool
		var err error
		if w.Kind == kindXDP {
			changed, err = a.attacher.XDP(a.programs[w.Program].Program, hook)
		} else {
			changed, err = a.attacher.TC(a.programs[w.Program].Program, hook, in)
		}
		if changed {
			a.stats.Attachments++
			a.options.Logger.Info("attached", "program", w.Program, "device", w.Device, "kind", w.Kind)
		}
		switch {
		case err == nil:
			keep[hook] = true
		case errors.Is(err, unix.ENODEV) || errors.Is(err, os.ErrNotExist):
			w.Reason = "the device has gone"
		case w.Kind == kindXDP && errors.Is(err, unix.EOPNOTSUPP):
			w.Reason = "its driver has no native XDP, and generic XDP would cost more than it saves"
		default:
			keep[hook] = true // whatever runs there runs on
			w.Reason = err.Error()
			errs = append(errs, err)
		}
	}
	a.attachments = wanted
	n, err := a.attacher.Retain(listed, keep, in)
	a.stats.Attachments += uint64(n)
	if n > 0 {
		a.options.Logger.Info("detached", "programs", n)
	}
	return errors.Join(append(errs, err)...)
}
