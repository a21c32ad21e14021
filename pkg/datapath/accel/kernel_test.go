package accel

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath/pods/podtest"
	"github.com/ravencni/raven/test/netns"
)

func TestOnlyLinux61AndLaterAccelerates(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-40-cloud-amd64": true, "6.18.44-fc": true, "7.0": true, "6.0.19": false, "5.15.0-91-generic": false,
		"4.19": false, "": false, "rolling": false,
	} {
		if newEnough(release) != want {
			t.Errorf("%q: want %v", release, want)
		}
	}
}

// expectBaseline applies and expects no error, no acceleration, and nothing of ours in the kernel.
func (n *node) expectBaseline(t *testing.T, a *Applier, why string) {
	t.Helper()
	if _, err := a.Apply(t.Context(), n.plan, n.host); err != nil {
		t.Error(err)
	}
	mode, reason := a.Mode()
	if mode != v1beta1.DatapathBaseline || !strings.Contains(reason, why) {
		t.Errorf("mode %s, reason %q", mode, reason)
	}
	if changes, err := a.Apply(t.Context(), n.plan, n.host); changes != 0 || err != nil {
		t.Errorf("the second pass made %d writes, error %v", changes, err)
	}
	if left := pinned(t); len(left) > 0 {
		t.Errorf("pins are left: %v", left)
	}
	expectNothingAttached(t, n, "veth0")
}

func TestALoadFailureLeavesTheNodeOnTheBaselineAndTakesTheOldProgramsAway(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		n.apply(t, n.applier(t, options))
		options.ForceFailure = true
		n.expectBaseline(t, n.applier(t, options), "cannot be loaded: made to fail")
		options.ForceFailure = false
		n.apply(t, n.applier(t, options))
	})
}

func TestAccelerationSwitchedOffTakesTheProgramsAway(t *testing.T) {
	bothMethods(t, func(t *testing.T, n *node, options Options) {
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		n.apply(t, n.applier(t, options))
		options.Mode = ModeOff
		n.expectBaseline(t, n.applier(t, options), "switched off")
	})
}

func TestWithoutABPFFilesystemTheReasonSaysWhatToMount(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		n.expectBaseline(t, n.applier(t, Options{PinRoot: t.TempDir() + "/raven"}), "not on a BPF filesystem")
	})
}

func TestAConntrackThatWouldBreakOffStreamsKeepsTheNodeOnTheBaseline(t *testing.T) {
	for _, name := range []string{"nf_conntrack_tcp_be_liberal", "nf_conntrack_tcp_ignore_invalid_rst"} {
		netns.Run(t, func(t *testing.T) {
			n := newNode(t)
			podtest.PointToPoint(t, "veth0", "10.244.1.2")
			a := n.applier(t, Options{})
			n.apply(t, a)
			must(t, os.WriteFile(filepath.Join(conntrackDir, name), []byte("0"), 0o644))
			n.expectBaseline(t, a, name)
			must(t, os.WriteFile(filepath.Join(conntrackDir, name), []byte("1"), 0o644))
			n.apply(t, a)
		})
	}
}

func TestAVerifierRefusalIsOneLineInTheReasonAndTheLogHasTheRest(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, Options{})
		a.specOf = changed(t, FromOverlay, readsOutOfBounds)
		n.expectBaseline(t, a, "the kernel's verifier refuses a program: load the program raven_from_overlay")
		if _, reason := a.Mode(); strings.Contains(reason, "\n") || len(reason) > maxReason+100 {
			t.Errorf("reason %q", reason)
		}
		if log := n.log.String(); !strings.Contains(log, "level=DEBUG msg=verifier line=") {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestAMissingKfuncIsNamed(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, Options{})
		a.specOf = maps.Clone(specOf)
		a.specOf[FromPod] = func() (*ebpf.CollectionSpec, error) {
			spec, err := specOf[FromPod]()
			must(t, err)
			var kfunc *btf.Func
			must(t, spec.Types.TypeByName("bpf_skb_ct_lookup", &kfunc))
			kfunc.Name = "bpf_skb_ct_lookup_of_no_kernel" // the call's metadata points to the very type
			return spec, nil
		}
		n.expectBaseline(t, a, "kernel lacks conntrack's kfuncs")
	})
}

func TestATreeOfAnotherLayoutUnderTheSameABIIsReplacedOnceTheBaselineCarries(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		podtest.PointToPoint(t, "veth0", "10.244.1.2")
		spec, err := specOf[FromPod]()
		must(t, err)
		other := spec.Maps[mapPods].Copy()
		other.MaxEntries = 7
		must(t, os.MkdirAll(TreePath("/sys/fs/bpf/raven"), 0o700))
		pin(t, other, TreePath("/sys/fs/bpf/raven")+"/"+mapPods)
		a := n.applier(t, Options{})
		if _, err := a.Apply(t.Context(), n.plan, n.host); err != nil {
			t.Error(err)
		}
		if mode, reason := a.Mode(); mode != v1beta1.DatapathBaseline || !strings.Contains(reason, "raven_pods: MaxEntries: 7") ||
			!strings.Contains(reason, "--cleanup") {
			t.Errorf("mode %s, reason %q", mode, reason)
		}
		n.apply(t, a)
	})
}
