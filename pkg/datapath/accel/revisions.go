package accel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// revisionsEvery bounds how long a program that somebody attaches by tcx later than the pod's device came goes past
// unnoticed. A look costs two system calls of about a microsecond for each device.
const revisionsEvery = time.Second

// WatchPrograms calls changed after somebody attached or detached a tcx program at one of the node's devices, for which
// the kernel has no events. It acts in the network namespace of the calling thread, and returns nil when ctx ends.
func (a *Applier) WatchPrograms(ctx context.Context, changed func()) error {
	return a.watchPrograms(ctx, revisionsEvery, changed)
}

func (a *Applier) watchPrograms(ctx context.Context, every time.Duration, changed func()) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	seen := revisions{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now, err := revisionsOf(a.devicesAtHand())
		if err != nil {
			return err
		}
		if seen.news(now) {
			changed()
		}
		seen = now
	}
}

// devicesAtHand are the devices that the last Apply looked at; empty where nothing is accelerated by tcx.
func (a *Applier) devicesAtHand() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.devices)
}

// hookPoint is one direction of a device.
type hookPoint struct {
	index int
	at    ebpf.AttachType
}

// revisions are the kernel's counts of changes to the programs of each hook.
type revisions map[hookPoint]uint64

// emptyRevision is what the kernel says of a hook that never had a program (linux/bpf_mprog.h).
const emptyRevision = 1

func revisionsOf(devices []int) (revisions, error) {
	now := make(revisions, 2*len(devices))
	for _, index := range devices {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at})
			if errors.Is(err, unix.ENODEV) {
				continue // it went since the last Apply
			}
			if err != nil {
				return nil, fmt.Errorf("ask for the tcx programs of device %d: %w", index, err)
			}
			now[hookPoint{index, at}] = result.Revision
		}
	}
	return now, nil
}

// news says whether now tells of a change: another revision than before, or a hook with programs that was not looked at
// before, since these may have come after the Apply that looked at its device.
func (r revisions) news(now revisions) bool {
	for at, revision := range now {
		if before, known := r[at]; known && before != revision || !known && revision > emptyRevision {
			return true
		}
	}
	return false
}
