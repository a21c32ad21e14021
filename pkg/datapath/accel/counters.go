package accel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/ravencni/raven/bpf"
)

// Counter is what one program did for one reason, since the maps were made.
type Counter struct {
	// Program such as raven_from_pod.
	Program string
	// Verdict is redirect, pass or drop.
	Verdict string
	// Reason such as no_route; bpf/include/reasons.h explains them.
	Reason         string
	Packets, Bytes uint64
}

// Counters reads the pinned counters, summed over the CPUs, zero ones included; there are none where nothing is pinned.
func (a *Applier) Counters(ctx context.Context) ([]Counter, error) {
	return ReadCounters(ctx, a.options.PinRoot)
}

// ReadCounters is Counters for readers without an Applier.
func ReadCounters(ctx context.Context, pinRoot string) ([]Counter, error) {
	path := filepath.Join(TreePath(pinRoot), mapCounters)
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the pinned counters %s: %w", path, err)
	}
	defer m.Close()
	reasons, err := reasonNames()
	if err != nil {
		return nil, err
	}
	var out []Counter
	for i, reason := range reasons {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var perCPU []programCounts
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read the counters of %s/%s: %w", reason.verdict, reason.name, err)
		}
		sum := map[string]*Counter{}
		for _, program := range []string{FromPod, FromOverlay, FromTunnel, FromUnderlay, XDPUnderlay} {
			sum[program] = &Counter{Program: program, Verdict: reason.verdict, Reason: reason.name}
		}
		for _, c := range perCPU {
			add(sum[FromPod], c.FromPod.Packets, c.FromPod.Bytes)
			add(sum[FromOverlay], c.FromOverlay.Packets, c.FromOverlay.Bytes)
			add(sum[FromTunnel], c.FromTunnel.Packets, c.FromTunnel.Bytes)
			add(sum[FromUnderlay], c.FromUnderlay.Packets, c.FromUnderlay.Bytes)
			add(sum[XDPUnderlay], c.XdpUnderlay.Packets, c.XdpUnderlay.Bytes)
		}
		for _, program := range []string{FromPod, FromOverlay, FromTunnel, FromUnderlay, XDPUnderlay} {
			out = append(out, *sum[program])
		}
	}
	return out, nil
}

func add(c *Counter, packets, bytes uint64) {
	c.Packets += packets
	c.Bytes += bytes
}

type reasonName struct{ verdict, name string }

// reasonNames reads enum raven_reason from the compiled programs: RAVEN_PASS_NO_ROUTE becomes pass, no_route.
func reasonNames() ([]reasonName, error) {
	spec, err := bpf.LoadFromPod()
	if err != nil {
		return nil, fmt.Errorf("read the compiled programs: %w", err)
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName("raven_reason", &enum); err != nil {
		return nil, fmt.Errorf("find the reasons in the compiled programs: %w", err)
	}
	names := make([]reasonName, len(enum.Values)-1)
	for _, v := range enum.Values {
		if v.Name == "RAVEN_REASON_MAX" {
			continue
		}
		verdict, name, ok := strings.Cut(strings.ToLower(strings.TrimPrefix(v.Name, "RAVEN_")), "_")
		if !ok || v.Value >= uint64(len(names)) {
			return nil, fmt.Errorf("the reason %s = %d does not fit the pattern", v.Name, v.Value)
		}
		names[v.Value] = reasonName{verdict, name}
	}
	return names, nil
}
