package cni

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
)

func TestAPodIsAcceleratedFromItsStartWithoutAnAgent(t *testing.T) {
	for primary := range primaries {
		t.Run(primary, func(t *testing.T) {
			onNode(t, func(t *testing.T, w *world) {
				w.agent()
				w.ipv6 = true
				c, rt := w.chain("1.1.0", primary, ours), w.runtimeConf("one")
				r := w.add(c, rt)
				if len(r.IPs) != 2 {
					t.Fatalf("addresses %v", r.IPs)
				}
				w.expectAccelerated(r)
				must(t, w.runtime.CheckNetworkList(context.Background(), c, rt))
				w.del(c, rt)
				w.expectNothingLeft()
				w.del(c, rt) // again, when all is gone
				w.expectNothingLeft()
			})
		})
	}
}

func TestThePluginChangesNothingInTheResultOfAnyVersion(t *testing.T) {
	onNode(t, func(t *testing.T, w *world) {
		w.agent()
		for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			c, rt := w.chain(version, "ptp", ours), w.runtimeConf("v"+version)
			// libcni keeps each plugin's result under the list's name alone, so the chain's own is what the last one said.
			alone, err := w.runtime.AddNetworkList(context.Background(), w.chain(version, "ptp"), rt)
			must(t, err)
			input := plain(t, alone)
			var out strings.Builder
			stdin := fmt.Sprintf(`{"cniVersion": %q, "name": "pods", "type": "raven-cni", "unknown": {"a": [1]}, "prevResult": %s}`, version, input)
			p := Plugin{Out: &out}
			must(t, p.Add(argsOf(rt, stdin)))
			if out.String() != input {
				t.Errorf("version %s:\n got %s\nwant %s", version, out.String(), input)
			}
			if len(w.pods()) != 1 {
				t.Errorf("version %s: entries %v, the plugin said:\n%s", version, w.pods(), w.said())
			}
			w.del(c, rt)
			w.expectNothingLeft()
		}
	})
}

func TestWithoutPinnedObjectsAPodStartsAllTheSame(t *testing.T) {
	onNode(t, func(t *testing.T, w *world) {
		c, rt := w.chain("1.1.0", "bridge", ours), w.runtimeConf("one")
		if r := w.add(c, rt); len(r.IPs) != 1 {
			t.Errorf("addresses %v", r.IPs)
		}
		must(t, w.runtime.CheckNetworkList(context.Background(), c, rt))
		must(t, w.runtime.GetStatusNetworkList(context.Background(), c))
		must(t, w.runtime.GCNetworkList(context.Background(), c, &libcni.GCArgs{
			ValidAttachments: []types.GCAttachment{{ContainerID: rt.ContainerID, IfName: rt.IfName}},
		}))
		w.del(c, rt)
		if _, err := os.Stat(pintree.Root); !os.IsNotExist(err) {
			t.Errorf("the plugin made %s: %v", pintree.Root, err)
		}
		if !strings.Contains(w.said(), "nothing is pinned") {
			t.Errorf("the log does not say why: %s", w.said())
		}
		// Another version of the agent runs.
		must(t, os.MkdirAll(filepath.Join(pintree.Root, "v99"), 0o700))
		rt = w.runtimeConf("two")
		w.add(c, rt)
		w.del(c, rt)
		if !strings.Contains(w.said(), "of version v99") {
			t.Errorf("the log does not say why: %s", w.said())
		}
		// The agent comes later and finds the pod.
		must(t, os.Remove(filepath.Join(pintree.Root, "v99")))
		rt = w.runtimeConf("three")
		r := w.add(c, rt)
		w.agent()
		w.expectAccelerated(r)
		w.del(c, rt)
		w.expectNothingLeft()
	})
}

func TestAShapedPodAndForeignInterfacesAreLeftToTheKernel(t *testing.T) {
	onNode(t, func(t *testing.T, w *world) {
		w.agent()
		shaper := `{"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 8000000}`
		c, rt := w.chain("1.0.0", "bridge", shaper, ours), w.runtimeConf("shaped")
		w.add(c, rt)
		w.expectNothingLeft()
		if !strings.Contains(w.said(), "qdisc tbf") {
			t.Errorf("the log does not say why: %s", w.said())
		}
		must(t, w.runtime.CheckNetworkList(context.Background(), c, rt))
		w.del(c, rt)

		primaries := map[string]string{"macvlan": `{"type": "macvlan", "master": "eth.0", "ipam": {"type": "host-local", "subnet": "10.244.1.0/24"}}`}
		text := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "mac", "plugins": [%s, %s]}`, primaries["macvlan"], ours)
		mac, err := libcni.NetworkConfFromBytes([]byte(text))
		must(t, err)
		rt = w.runtimeConf("mac")
		w.add(mac, rt)
		w.expectNothingLeft()
		if !strings.Contains(w.said(), "no device of the host leads into the pod's network namespace") {
			t.Errorf("the log does not say why: %s", w.said())
		}
		w.del(mac, rt)
	})
}

func TestCheckFindsEachKindOfDamage(t *testing.T) {
	onNode(t, func(t *testing.T, w *world) {
		w.agent()
		c, rt := w.chain("1.1.0", "bridge", ours), w.runtimeConf("one")
		r := w.add(c, rt)
		check := func(what, want string) {
			t.Helper()
			err := w.runtime.CheckNetworkList(context.Background(), c, rt)
			if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: CHECK says %v, want %q", what, err, want)
			}
		}
		tree := pintree.TreePath(pintree.Root)
		check("whole", "")
		pods, err := ebpf.LoadPinnedMap(filepath.Join(tree, pintree.Pods), nil)
		must(t, err)
		defer pods.Close()
		var ifindex uint32
		for addr, e := range w.pods() {
			ifindex = e.Ifindex
			must(t, pods.Delete(pintree.AddressOf(addr)))
			check("entry gone", "is missing in the map of pods")
			wrong := e
			wrong.GwMac[0] ^= 2
			must(t, pods.Put(pintree.AddressOf(addr), wrong))
			check("entry wrong", "is in the map of pods with")
			w.repeat(rt, r) // repairs
			check("repaired", "")
		}
		pin := filepath.Join(tree, "links", fmt.Sprintf("%s-%d", pintree.FromPod, ifindex))
		l, err := link.LoadPinnedLink(pin, nil)
		must(t, err)
		other := program(t)
		must(t, l.Update(other))
		check("another program", "the program with number")
		must(t, l.Detach())
		check("detached", "was detached")
		must(t, l.Close())
		must(t, os.Remove(pin))
		check("pin gone", "is not attached")
		w.agent()
		check("repaired by the agent", "")
		w.expectAccelerated(r)
		must(t, os.Remove(filepath.Join(tree, pintree.Pods)))
		check("map gone", "open the pinned map")
	})
}

func TestGCRemovesExactlyTheStale(t *testing.T) {
	onNode(t, func(t *testing.T, w *world) {
		w.agent()
		c, rt := w.chain("1.1.0", "ptp", ours), w.runtimeConf("lives")
		r := w.add(c, rt)
		// A pod whose DEL never came: the namespace went, and its veth with it.
		gone := w.leaveBehind(c)
		pods, err := ebpf.LoadPinnedMap(filepath.Join(pintree.TreePath(pintree.Root), pintree.Pods), nil)
		must(t, err)
		defer pods.Close()
		// An address that the living pod does not hold.
		for _, e := range w.pods() {
			must(t, pods.Put(pintree.AddressOf(w.plan.LocalPrefixes[0].Addr().Next()), e))
			break
		}
		if len(w.pods()) != 3 || len(w.pins()) != 2 {
			t.Fatalf("before: %v, %v, gone %v", w.pods(), w.pins(), gone)
		}
		must(t, w.runtime.GCNetworkList(context.Background(), c, &libcni.GCArgs{
			ValidAttachments: []types.GCAttachment{{ContainerID: rt.ContainerID, IfName: rt.IfName}, {ContainerID: "gone", IfName: "eth0"}},
		}))
		if len(w.pods()) != 1 || len(w.pins()) != 1 {
			t.Errorf("after: %v, %v", w.pods(), w.pins())
		}
		w.expectAccelerated(r)
		w.del(c, rt)
		w.expectNothingLeft()
	})
}
