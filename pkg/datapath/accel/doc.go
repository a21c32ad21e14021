// Package accel is the accelerator: it loads and pins the BPF programs, fills their maps from the Plan, and attaches
// them to pods, overlay, tunnel and underlay. Without it the kernel's own tables forward the same packets.
//
// docs/design/acceleration.md explains the order of writes and what survives a restart.
package accel

import (
	"path/filepath"
	"strconv"
	"strings"
)

// ABI is RAVEN_ABI of bpf/include/abi.h: the version of everything pinned.
const ABI = 1

// TreePath is the folder of this ABI's pinned objects: maps and programs under their own names, attachments below.
func TreePath(pinRoot string) string {
	return filepath.Join(pinRoot, "v"+strconv.Itoa(ABI))
}

// parseTree reads the ABI number of a tree's folder name.
func parseTree(name string) (int, bool) {
	number, ok := strings.CutPrefix(name, "v")
	abi, err := strconv.Atoi(number)
	return abi, ok && err == nil
}
