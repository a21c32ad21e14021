package accel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/pods"
	"github.com/ravencni/raven/pkg/topology"
)

// retryAfter is how long a kernel that refused the programs is not asked again: loading costs CPU time, and the answer
// seldom changes.
const retryAfter = time.Minute

// Applier brings the BPF side of the datapath to the planned state.
type Applier struct {
	options Options
	// specOf is where compiled programs come from; tests change it.
	specOf map[string]func() (*ebpf.CollectionSpec, error)

	mu       sync.Mutex
	attacher *attach.Attacher
	maps     mapSet
	programs map[string]*program
	slots    *slots
	refused  *unavailable // the kernel's last refusal
	retryAt  time.Time
	// incomplete is true where the last pass could not write the whole FIB, and so left acceleration switched off.
	incomplete bool

	mode        v1beta1.DatapathMode
	reason      string
	pods        []pods.Pod
	attachments []Attachment
	devices     []int // that the last Apply looked at for others' tcx programs
	stats       Stats
}

var _ datapath.Applier = (*Applier)(nil)

// New makes an Applier; it touches nothing before the first Apply.
func New(options Options) (*Applier, error) {
	options.fillIn()
	if options.Mode != ModeAuto && options.Mode != ModeOff {
		return nil, fmt.Errorf("acceleration mode %q is neither %s nor %s", options.Mode, ModeAuto, ModeOff)
	}
	return &Applier{
		options: options, specOf: specOf, slots: newSlots(),
		mode: v1beta1.DatapathOff, reason: "no plan has been applied yet",
	}, nil
}

// Name is accel.
func (a *Applier) Name() string { return "accel" }

// Apply accelerates what plan says. Where the kernel cannot, that is no error: everything of ours is removed, Mode says
// why, and the kernel's tables forward.
func (a *Applier) Apply(ctx context.Context, plan *topology.Plan, host datapath.Host) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.stats.writes()
	a.devices = nil
	err := a.apply(ctx, plan, host)
	return int(a.stats.writes() - before), err
}

func (a *Applier) apply(ctx context.Context, plan *topology.Plan, host datapath.Host) error {
	if plan.Role == topology.RoleNone || plan.Role == "" {
		a.say(v1beta1.DatapathOff, "the node is in no region, or L3 is switched off")
		return a.remove(ctx)
	}
	if a.options.Mode == ModeOff {
		a.say(v1beta1.DatapathBaseline, "acceleration is switched off")
		return a.remove(ctx)
	}
	err := a.accelerate(ctx, plan, host)
	var cannot *unavailable
	if errors.As(err, &cannot) {
		a.say(v1beta1.DatapathBaseline, cannot.reason)
		return a.remove(ctx)
	}
	switch {
	case err == nil:
		a.say(v1beta1.DatapathAccelerated, "")
	case a.mode != v1beta1.DatapathAccelerated || a.incomplete:
		a.say(v1beta1.DatapathBaseline, oneLine(err))
	}
	return err
}

// say records the mode and logs a change.
func (a *Applier) say(mode v1beta1.DatapathMode, reason string) {
	if a.mode == mode && a.reason == reason {
		return
	}
	a.mode, a.reason = mode, reason
	if mode == v1beta1.DatapathBaseline {
		a.options.Logger.Warn("acceleration is off, the kernel's tables forward", "reason", reason)
		return
	}
	a.options.Logger.Info("datapath mode", "mode", mode, "reason", reason)
}

// Mode says how the node forwards since the last Apply, and why it is not accelerated.
func (a *Applier) Mode() (v1beta1.DatapathMode, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mode, a.reason
}

// Pods lists the local pods as the last Apply saw them, with the reasons of those that are not accelerated.
func (a *Applier) Pods() []pods.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.pods)
}

// Attachments lists where programs are attached since the last Apply, and where something kept them away.
func (a *Applier) Attachments() []Attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.attachments)
}

// Stats returns the counts of writes.
func (a *Applier) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

// Cleanup detaches and unpins everything, of every ABI version.
func (a *Applier) Cleanup(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.say(v1beta1.DatapathOff, "cleaned up")
	return a.remove(ctx)
}
