// Package attach puts pinned BPF programs on network devices, by tcx links where the kernel has them and clsact filters
// where it does not, and says what others have put there.
package attach

import (
	"path/filepath"
	"strconv"
	"strings"
)

// Identity of our filters in a clsact qdisc: nobody else's filter has both, and a restarted daemon finds its own.
const (
	// FilterPriority is 0x7261, "ra" in ASCII.
	FilterPriority = 0x7261
	// FilterHandle is 0x7261, too.
	FilterHandle = 0x7261
)

// Folders below the pinned tree's root.
const (
	// LinksFolder holds one pinned link per attachment by tcx or XDP, named <program>-<ifindex>: BPF filesystems refuse
	// names with dots, which device names may have.
	LinksFolder = "links"
	// ClsactFolder holds an empty folder named <ifindex> for each clsact qdisc that Raven made and may remove.
	ClsactFolder = "clsact"
)

// Hook is a place where a program of ours is or should be.
type Hook struct {
	// Program is its name, such as raven_from_pod.
	Program string
	// Index of the device.
	Index int
}

// pin is the path of the hook's link.
func (h Hook) pin(root string) string {
	return filepath.Join(root, LinksFolder, h.Program+"-"+strconv.Itoa(h.Index))
}

// parseHook reads the name of a pinned link.
func parseHook(name string) (Hook, bool) {
	program, index, ok := strings.Cut(name, "-")
	n, err := strconv.Atoi(index)
	return Hook{program, n}, ok && err == nil && n > 0
}

// LinkPath is where a hook's link is pinned below the tree's root.
func LinkPath(root string, h Hook) string { return h.pin(root) }
