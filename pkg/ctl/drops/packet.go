package drops

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/ctl/table"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel"
)

// Packet is one that a BPF program dropped. Of VXLAN and of tunnel handshakes it is the outer packet.
type Packet struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	// Device is the one that it came in by, or its index where that has gone.
	Device   string `json:"device"`
	Protocol string `json:"protocol"`
	// Source and Destination are addresses, with a port where the protocol is TCP or UDP.
	Source      string `json:"source"`
	Destination string `json:"destination"`
}

// Report is all that is known of this node's drops.
type Report struct {
	Counts  []Count  `json:"counts"`
	Packets []Packet `json:"packets"`
}

// Packets returns the last packets that this node's programs dropped, oldest first: a few for each reason, which the kernel keeps.
// What the nft table drops, as it does where acceleration is off, is counted only.
func Packets(ctx context.Context) ([]Packet, error) {
	dropped, err := accel.ReadDropped(ctx, datapath.PinRoot)
	out := make([]Packet, 0, len(dropped))
	for _, d := range dropped {
		out = append(out, Packet{
			At: d.At, Reason: d.Reason, Device: deviceName(d.Device), Protocol: protocolName(d.Protocol),
			Source: endOf(d.Source), Destination: endOf(d.Destination),
		})
	}
	return out, err
}

// After leaves out the packets that were dropped before the time.
func After(packets []Packet, at time.Time) []Packet {
	return slices.DeleteFunc(slices.Clone(packets), func(p Packet) bool { return p.At.Before(at) })
}

// WritePackets prints packets as a table.
func WritePackets(w io.Writer, packets []Packet) error {
	t := table.Table{Heading: []string{"DROPPED AT", "REASON", "CAME IN BY", "PACKET"}}
	for _, p := range packets {
		t.Add(p.At.Format("15:04:05.000"), p.Reason, p.Device, p.Protocol+" "+p.Source+" -> "+p.Destination)
	}
	return t.Write(w)
}

func deviceName(index int) string {
	if device, err := net.InterfaceByIndex(index); err == nil {
		return device.Name
	}
	return fmt.Sprintf("%d (gone)", index)
}

var protocols = map[uint8]string{
	unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "icmpv6",
}

func protocolName(protocol uint8) string {
	if name, known := protocols[protocol]; known {
		return name
	}
	return strconv.Itoa(int(protocol))
}

func endOf(end netip.AddrPort) string {
	if end.Port() == 0 {
		return end.Addr().String()
	}
	return end.String()
}
