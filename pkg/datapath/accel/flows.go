package accel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/bpf"
)

// Flow is what the programs decided about the packets of one direction, the last time that they asked conntrack.
type Flow struct {
	// Protocol is TCP or UDP.
	Protocol            string
	Source, Destination netip.AddrPort
	// Accelerated flows skip the kernel's stack; Reason says why others do not, such as nat.
	Accelerated bool
	Reason      string
	// Age is the time since conntrack was asked: less than about two seconds while packets come.
	Age time.Duration
}

// ReadFlows returns the flows in the pinned map, in no order; there are none where nothing is pinned. Flows change while it
// reads, so that one may be missing.
func ReadFlows(ctx context.Context, pinRoot string) ([]Flow, error) {
	path := filepath.Join(TreePath(pinRoot), mapFlows)
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the pinned flows %s: %w", path, err)
	}
	defer m.Close()
	reasons, err := reasonNames()
	if err != nil {
		return nil, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		return nil, fmt.Errorf("read the clock that flows are stamped by: %w", err)
	}
	var out []Flow
	var key flowKey
	var value flow
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out = append(out, flowOf(key, value, time.Duration(now.Nano()), reasons))
	}
	// An LRU map that changes under the walk can end it early; what was read stands.
	if err := entries.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read the pinned flows %s: %w", path, err)
	}
	return out, nil
}

func flowOf(key flowKey, value flow, now time.Duration, reasons []reasonName) Flow {
	f := Flow{
		Protocol: "TCP", Source: endOf(key.Saddr, key.Sport), Destination: endOf(key.Daddr, key.Dport),
		Accelerated: value.Verdict == bpf.FromPodRavenReasonRAVEN_REDIRECT_POD,
		Age:         max(0, now-time.Duration(value.CheckedNs)),
	}
	if key.Protocol == unix.IPPROTO_UDP {
		f.Protocol = "UDP"
	}
	if n := int(value.Verdict); !f.Accelerated && n < len(reasons) {
		f.Reason = reasons[n].name
	}
	return f
}

// endOf reads an address and a port, which the map has in network byte order.
func endOf(a address, port uint16) netip.AddrPort {
	var bytes [2]byte
	binary.NativeEndian.PutUint16(bytes[:], port)
	return netip.AddrPortFrom(netip.AddrFrom16(a.Bytes).Unmap(), binary.BigEndian.Uint16(bytes[:]))
}
