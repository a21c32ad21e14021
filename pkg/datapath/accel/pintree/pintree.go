// Package pintree names what lies in the tree of pinned objects and renders its entries. It is small, so that the CNI
// plugin, which runs once for each pod, starts at once.
package pintree

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/datapath/pods"
)

// Root is the folder of all trees.
const Root = "/sys/fs/bpf/raven"

// StateDir holds keys, snapshot and recorded sysctls of the agent, and the plugin's log.
const StateDir = "/var/lib/raven"

// ABI is RAVEN_ABI of bpf/include/abi.h: the version of everything pinned.
const ABI = bpf.ABI

// FromPod names the program at pods' veths, and its pin.
const FromPod = "raven_from_pod"

// Names of the maps that the CNI plugin uses, and of their pins.
const (
	Pods = bpf.FromPodMapRavenPods
	Fib4 = bpf.FromPodMapRavenFib4
	Fib6 = bpf.FromPodMapRavenFib6
)

// Shared structs of bpf/include/maps.h.
type (
	Address  = bpf.FromPodRavenAddr
	PodEntry = bpf.FromPodRavenPod
	Fib4Key  = bpf.FromPodRavenFib4Key
	Fib6Key  = bpf.FromPodRavenFib6Key
	FibEntry = bpf.FromPodRavenFibEntry
)

// ScopeLocal marks this node's own pod prefixes in the FIB.
const ScopeLocal = bpf.FromPodRavenScopeRAVEN_SCOPE_LOCAL

// TreePath is the folder of this ABI's pinned objects: maps and programs under their own names, attachments below.
func TreePath(root string) string {
	return filepath.Join(root, "v"+strconv.Itoa(ABI))
}

// ParseTree reads the ABI number of a tree's folder name.
func ParseTree(name string) (int, bool) {
	number, ok := strings.CutPrefix(name, "v")
	abi, err := strconv.Atoi(number)
	return abi, ok && err == nil
}

// AddressOf renders an address as the programs do: IPv4 mapped into ::ffff:0:0/96.
func AddressOf(a netip.Addr) Address { return Address{Bytes: a.As16()} }

// AddrOf is the address that a key of raven_pods means.
func AddrOf(key Address) netip.Addr { return netip.AddrFrom16(key.Bytes).Unmap() }

// MAC is all zero where mac is not six bytes long.
func MAC(mac net.HardwareAddr) (b [6]byte) {
	if len(mac) == len(b) {
		copy(b[:], mac)
	}
	return b
}

// EntryOf renders a pod as an entry of raven_pods.
func EntryOf(p pods.Pod) PodEntry {
	return PodEntry{
		Ifindex: uint32(p.Index), Mac: MAC(p.MAC), GwMac: MAC(p.GatewayMAC), Mtu: uint16(max(0, min(p.MTU, 0xffff))),
	}
}
