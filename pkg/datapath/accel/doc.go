// Package accel is the accelerator: it loads and pins the BPF programs, fills their maps from the Plan, and attaches
// them to pods, overlay, tunnel and underlay. Without it the kernel's own tables forward the same packets.
//
// docs/design/acceleration.md explains the order of writes and what survives a restart.
package accel

import "github.com/ravencni/raven/pkg/datapath/accel/pintree"

// ABI is the version of everything pinned.
const ABI = pintree.ABI

// TreePath is the folder of this ABI's pinned objects: maps and programs under their own names, attachments below.
func TreePath(pinRoot string) string { return pintree.TreePath(pinRoot) }
