package accel

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/bpf"
)

// Dropped is a packet that a program dropped. Of VXLAN and of handshakes it is the outer packet.
type Dropped struct {
	At time.Time
	// Reason such as spoofed_source.
	Reason string
	// Protocol is the IP protocol's number. The ports of others than TCP and UDP are 0.
	Protocol            uint8
	Source, Destination netip.AddrPort
	// Device is the index of the device that it came in by.
	Device int
}

// ReadDropped returns the last packets that the programs dropped, oldest first: on each processor up to eight for each reason, which
// the pinned map raven_dropped keeps. There are none where nothing is pinned.
func ReadDropped(ctx context.Context, pinRoot string) ([]Dropped, error) {
	path := filepath.Join(TreePath(pinRoot), mapDropped)
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the pinned map of dropped packets %s: %w", path, err)
	}
	defer m.Close()
	reasons, err := reasonNames()
	if err != nil {
		return nil, err
	}
	var monotonic unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic); err != nil {
		return nil, fmt.Errorf("read the monotonic clock: %w", err)
	}
	boot := time.Now().Add(-time.Duration(monotonic.Nano()))
	var out []Dropped
	for i, reason := range reasons {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if reason.verdict != "drop" {
			continue
		}
		var perCPU []droppedRing
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read the packets dropped as %s: %w", reason.name, err)
		}
		for _, ring := range perCPU {
			for _, d := range ring.Last {
				if d.AtNs == 0 {
					continue
				}
				out = append(out, Dropped{
					At: boot.Add(time.Duration(d.AtNs)), Reason: reason.name, Protocol: d.Flow.Protocol, Device: int(d.Ifindex),
					Source: end(d.Flow.Saddr, d.Flow.Sport), Destination: end(d.Flow.Daddr, d.Flow.Dport),
				})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Dropped) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Reason, b.Reason)) })
	return out, nil
}

// end reads an address and a port as the programs keep them: IPv4 mapped, the port in network byte order.
func end(addr bpf.Addr, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(addr.Bytes).Unmap(), binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, port)))
}
