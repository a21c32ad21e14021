package accel

import (
	"context"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/ravencni/raven/pkg/datapath/pods/podtest"
	"github.com/ravencni/raven/test/netns"
)

func TestATCXProgramThatComesOrGoesWithoutAnEventIsNoticed(t *testing.T) {
	needsTCX(t)
	netns.Run(t, func(t *testing.T) {
		n := newNode(t)
		pod := podtest.PointToPoint(t, "veth0", "10.244.1.2")
		a := n.applier(t, Options{})
		n.apply(t, a)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var theirs link.Link
		var reasons []string
		err := a.watchPrograms(ctx, time.Millisecond, func() {
			n.apply(t, a)
			reasons = append(reasons, a.Pods()[0].Reason)
			var err error
			switch len(reasons) {
			case 1: // our own programs are new to the watch
				theirs, err = link.AttachTCX(link.TCXOptions{
					Interface: pod.Host.Attrs().Index, Program: foreignProgram(t, ebpf.SchedCLS, -1), Attach: ebpf.AttachTCXEgress,
				})
				must(t, err)
			case 2:
				must(t, theirs.Detach())
				must(t, theirs.Close())
			default:
				if a.Pods()[0].Reason == "" {
					cancel()
				}
			}
		})
		must(t, err)
		if len(reasons) < 3 || reasons[0] != "" || reasons[1] == "" || reasons[len(reasons)-1] != "" {
			t.Errorf("the pod was left alone at each notice because of %q", reasons)
		}
	})
}
