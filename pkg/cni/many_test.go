package cni

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestPodsThatAreMadeAndDeletedAtOnceLeaveNothingBehind(t *testing.T) {
	const pods = 16
	onNode(t, func(t *testing.T, w *world) {
		w.agent()
		c := w.chain("1.1.0", "ptp", ours)
		var list []*libcni.RuntimeConf
		for i := range pods {
			list = append(list, w.runtimeConf(fmt.Sprintf("pod-%d", i)))
		}
		w.together(pods, func(i int) error {
			if _, err := w.runtime.AddNetworkList(context.Background(), c, list[i]); err != nil {
				return err
			}
			return w.runtime.CheckNetworkList(context.Background(), c, list[i])
		})
		if len(w.pods()) != pods || len(w.pins()) != pods {
			t.Errorf("%d entries and %d pins of %d pods; the plugin said:\n%s", len(w.pods()), len(w.pins()), pods, w.said())
		}
		if s := w.agent(); s.Attachments != 0 || s.MapUpdates != 0 || s.MapDeletions != 0 {
			t.Errorf("the agent had to correct what the plugin did: %+v", s)
		}
		w.together(pods, func(i int) error { return w.runtime.DelNetworkList(context.Background(), c, list[i]) })
		w.expectNothingLeft()
		if strings.Contains(w.said(), "level=WARN") {
			t.Errorf("the plugin said:\n%s", w.said())
		}
	})
}

// An ADD leaves its work to another run, and a pod may be deleted before that has begun.
func TestADELThatComesAtOnceWaitsForWhatTheADDHasLeft(t *testing.T) {
	onNode(t, func(t *testing.T, w *world) {
		w.agent()
		c := w.chain("1.1.0", "ptp", ours)
		for i := range 8 {
			rt := w.runtimeConf(fmt.Sprintf("pod-%d", i))
			_, err := w.runtime.AddNetworkList(context.Background(), c, rt)
			must(t, err)
			w.del(c, rt)
			w.settle(rt) // a run that the DEL did not wait for would be waiting for the DEL
			w.expectNothingLeft()
		}
		// What was left did find its pod.
		if n := strings.Count(w.said(), "msg=done command=ADD"); n != 16 {
			t.Errorf("%d lines on an ADD or its rest, want 16; the plugin said:\n%s", n, w.said())
		}
	})
}

func TestConcurrentADDsAndDELsOfOnePodDoNoHarm(t *testing.T) {
	onNode(t, func(t *testing.T, w *world) {
		w.agent()
		c, rt := w.chain("1.1.0", "bridge", ours), w.runtimeConf("one")
		r := w.add(c, rt)
		stdin := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "pods", "type": "raven-cni", "prevResult": %s}`, plain(t, r))
		again := func(int) error {
			p := Plugin{Out: new(strings.Builder)}
			return p.Add(argsOf(rt, stdin))
		}
		w.together(6, again)
		w.expectAccelerated(r)
		w.together(6, func(i int) error {
			p := Plugin{}
			if i%2 == 0 {
				return again(i)
			}
			return p.Del(argsOf(rt, stdin))
		})
		must(t, again(0))
		w.expectAccelerated(r)
		w.del(c, rt)
		w.expectNothingLeft()
	})
}

func TestADELAfterThePodHasGoneForgetsItAndNobodyElse(t *testing.T) {
	onNode(t, func(t *testing.T, w *world) {
		w.agent()
		c, rt := w.chain("0.4.0", "ptp", ours), w.runtimeConf("lives")
		r := w.add(c, rt)
		gone := w.runtimeConf("gone")
		old := w.add(c, gone)
		stdin := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "pods", "type": "raven-cni", "prevResult": %s}`, plain(t, old))
		for addr, e := range w.pods() {
			if old.IPs[0].Address.Contains(addr.AsSlice()) && addr.String() == old.IPs[0].Address.IP.String() {
				l, err := netlink.LinkByIndex(int(e.Ifindex))
				must(t, err)
				must(t, netlink.LinkDel(l))
			}
		}
		var p Plugin
		late := argsOf(gone, stdin)
		late.Netns = "/proc/self/no-such-namespace"
		must(t, p.Del(late))
		if len(w.pods()) != 1 || len(w.pins()) != 1 {
			t.Errorf("after the late DEL: %v, %v", w.pods(), w.pins())
		}
		// The addresses are the living pod's by now, as the runtime's late DEL of the old one names them.
		var stolen = *old
		stolen.IPs = r.IPs
		late = argsOf(gone, fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "pods", "type": "raven-cni", "prevResult": %s}`, plain(t, &stolen)))
		late.Netns = ""
		must(t, p.Del(late))
		w.expectAccelerated(r)
		w.del(c, rt)
		w.expectNothingLeft()
	})
}

// together runs f n times at once, each on a thread in the node's namespaces.
func (w *world) together(n int, f func(i int) error) {
	w.t.Helper()
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(w.t, err)
	defer unix.Close(here)
	mounts, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(w.t, err)
	defer unix.Close(mounts)
	var group sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		group.Go(func() { errs[i] = inNamespaces(here, mounts, func() error { return f(i) }) })
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			w.t.Errorf("run %d: %v", i, err)
		}
	}
}
