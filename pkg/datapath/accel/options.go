package accel

import (
	"log/slog"

	"github.com/ravencni/raven/pkg/datapath"
)

// Mode says whether to accelerate.
type Mode string

const (
	// ModeAuto accelerates where the kernel can.
	ModeAuto Mode = "auto"
	// ModeOff leaves every packet to the kernel's own tables.
	ModeOff Mode = "off"
)

// Options of an Applier.
type Options struct {
	// PinRoot is the folder of pinned objects; empty: datapath.PinRoot. It must lie on a BPF filesystem that outlives
	// the process, so in a container it must be the host's.
	PinRoot string
	// Logger; nil: slog.Default().
	Logger *slog.Logger
	// Mode; empty: ModeAuto.
	Mode Mode
	// XDP asks for raven_xdp_underlay, which runs in the driver only.
	XDP bool
	// HandshakesPerSecond bounds tunnel handshakes per source, in XDP; 0: no limit.
	HandshakesPerSecond int
	// ForceFailure pretends that the kernel refuses the programs.
	ForceFailure bool
	// ForceClsact attaches as on kernels without tcx.
	ForceClsact bool
}

func (o *Options) fillIn() {
	if o.PinRoot == "" {
		o.PinRoot = datapath.PinRoot
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Mode == "" {
		o.Mode = ModeAuto
	}
}

// Stats counts writes since the Applier was made.
type Stats struct {
	// MapUpdates and MapDeletions count map entries.
	MapUpdates, MapDeletions uint64
	// Attachments counts programs attached, replaced and detached.
	Attachments uint64
	// Pins counts maps and programs pinned, and trees removed.
	Pins uint64
}

func (s Stats) writes() uint64 { return s.MapUpdates + s.MapDeletions + s.Attachments + s.Pins }

// Attachment is a place where a program of ours runs, or would run but for Reason.
type Attachment struct {
	Program string
	// Device and Index of the device.
	Device string
	Index  int
	// Kind is tcx, clsact or xdp.
	Kind string
	// Reason says why the program is not attached; empty where it is.
	Reason string
}
