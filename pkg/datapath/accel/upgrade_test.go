package accel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/pods/podtest"
	"github.com/ravencni/raven/test/netns"
)

func TestAnUpgradeReplacesTheProgramBehindTheSameLink(t *testing.T) {
	needsTCX(t)
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		n.apply(t, n.applier(t, Options{}))
		before := kernelState(t)

		next := n.applier(t, Options{})
		next.specOf = changed(t, FromPod, anotherBuild)
		// One pin and one link; all else is as it was.
		if changes := n.apply(t, next); changes != 2 {
			t.Errorf("%d writes: %+v", changes, next.Stats())
		}
		after := kernelState(t)
		for path, id := range before {
			replaced := strings.Contains(path, "raven_from_pod") && !strings.Contains(path, "links/") ||
				strings.HasSuffix(path, " program") && strings.Contains(path, "raven_from_pod")
			if (after[path] != id) != replaced {
				t.Errorf("%s was %d and is %d", path, id, after[path])
			}
		}
		if changes := n.apply(t, next); changes != 0 {
			t.Errorf("then %d writes", changes)
		}
	})
}

func TestAnUpgradeReplacesClsactFiltersInPlace(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		n.apply(t, n.applier(t, Options{ForceClsact: true}))
		monitor := tcMonitor(t)
		next := n.applier(t, Options{ForceClsact: true})
		next.specOf = changed(t, FromPod, anotherBuild)
		if changes := n.apply(t, next); changes != 2 {
			t.Errorf("%d writes: %+v", changes, next.Stats())
		}
		// One message, so that the kernel never had a moment without the filter.
		if diff := cmp.Diff([]string{"new filter"}, monitor()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAnotherTunnelDeviceTypeLoadsItsProgramAnew(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		a := n.applier(t, Options{})
		n.apply(t, a)
		bare := kernelState(t)[own+FromTunnel]
		n.host.Tunnel.Ethernet = true
		n.apply(t, a)
		ethernet := kernelState(t)[own+FromTunnel]
		if bare == ethernet {
			t.Error("the program with another constant should be another one")
		}
		if changes := n.apply(t, n.applier(t, Options{})); changes != 0 || kernelState(t)[own+FromTunnel] != ethernet {
			t.Errorf("after a restart with the same constant: %d writes", changes)
		}
	})
}

func TestATreeOfAnotherABIIsTakenOverLinkByLink(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		gone := podtest.PointToPoint(t, "veth1", "10.244.1.3")
		n.apply(t, n.applier(t, options))
		must(t, os.Rename(TreePath(datapath.PinRoot), filepath.Join(datapath.PinRoot, "v0")))
		gone.Delete(t)
		before := kernelState(t)

		a := n.applier(t, options)
		a.specOf = changed(t, FromPod, anotherBuild)
		n.apply(t, a)
		after := kernelState(t)
		for path, id := range before {
			if strings.Contains(path, "links/") && !strings.HasSuffix(path, " program") {
				kept := after[strings.Replace(path, "v0/", own, 1)]
				if dead := strings.HasSuffix(path, hookName(FromPod, gone)); dead && kept != 0 || !dead && kept != id {
					t.Errorf("the link %s was %d and is %d", path, id, kept)
				}
			}
			if after[path] != 0 {
				t.Errorf("%s is still there", path)
			}
		}
		if diff := cmp.Diff(gatewayAttachments, attached(a)); diff != "" {
			t.Error(diff)
		}
		must(t, os.Mkdir(filepath.Join(datapath.PinRoot, "v7"), 0o700))
		must(t, a.Cleanup(t.Context()))
		expectNothingAttached(t, n, "veth0")
		if _, err := os.Stat(datapath.PinRoot); !os.IsNotExist(err) {
			t.Errorf("left: %v", pinned(t))
		}
	})
}

// own begins the paths of what this version pins.
var own = filepath.Base(TreePath("")) + "/"

func hookName(program string, pod *podtest.Pod) string {
	return filepath.Base(attach.LinkPath("", attach.Hook{Program: program, Index: pod.Host.Attrs().Index}))
}

func TestAMapReplacedByHandIsAdoptedWithItsProgramsLoadedAnew(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, Options{})
		n.apply(t, a)
		path := filepath.Join(TreePath(datapath.PinRoot), mapFib4)
		must(t, os.Remove(path))
		spec, err := specOf[FromPod]()
		must(t, err)
		pin(t, spec.Maps[mapFib4], path)
		n.apply(t, a)
		p, err := ebpf.LoadPinnedProgram(filepath.Join(TreePath(datapath.PinRoot), FromPod), nil)
		must(t, err)
		defer p.Close()
		info, err := p.Info()
		must(t, err)
		ids, _ := info.MapIDs()
		want := ebpf.MapID(kernelState(t)[own+mapFib4])
		var found bool
		for _, id := range ids {
			found = found || id == want
		}
		if !found {
			t.Errorf("the program uses the maps %v, not the pinned %d", ids, want)
		}
		entries, err := readMap[fib4Key, fibEntry](a.maps[mapFib4])
		must(t, err)
		if len(entries) != 5 {
			t.Errorf("entries %v", entries)
		}
		if changes := n.apply(t, a); changes != 0 {
			t.Errorf("%d writes", changes)
		}
	})
}
