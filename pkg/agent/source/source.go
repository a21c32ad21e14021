package source

import (
	"context"
	"net/netip"

	"github.com/ravencni/raven/pkg/topology"
)

// Reasons of the problems that a source reports; the planner has its own.
const (
	// ReasonNotParsed: a document is not YAML or JSON, or does not fit the object it names.
	ReasonNotParsed = "NotParsed"
	// ReasonNotReadable: a file or the folder cannot be read.
	ReasonNotReadable = "NotReadable"
	// ReasonUnknownKind: an object that the agent does not read.
	ReasonUnknownKind = "UnknownKind"
	// ReasonUnknownField: a field that the object's schema does not have; the rest of the object is used.
	ReasonUnknownField = "UnknownField"
	// ReasonDuplicate: the same object stands in two places; the first one counts.
	ReasonDuplicate = "Duplicate"
	// ReasonNothingLeft: all objects of a kind vanished at once; the last known ones stay.
	ReasonNothingLeft = "NothingLeft"
	// ReasonBadValue: a key of a ConfigMap has a value that means nothing; the last known one stays.
	ReasonBadValue = "BadValue"
	// ReasonNotBuilt: a setting asks for something that does not exist yet.
	ReasonNotBuilt = "NotBuilt"
	// ReasonUnreachable: the API server does not answer; the last known objects stay.
	ReasonUnreachable = "Unreachable"
)

// Input is what a source knows. Its objects are never written after they were handed out.
type Input struct {
	State topology.State
	// Problems are the items that the source left out, sorted by object, reason and message.
	Problems []topology.Problem
	// Synced is true once the source itself has delivered every kind of object; until then State is the seed.
	Synced bool
	// Waiting says, while Synced is false, what for.
	Waiting string
	// Emptied is true where the source saw the last Gateway being deleted, as opposed to an answer without any.
	Emptied bool
	// Throws are hosts that the source talks to and that must never be routed into a tunnel.
	Throws []netip.Addr
}

// Source delivers the cluster's objects level-triggered: a notice that something changed, and all that is known now.
type Source interface {
	// Run feeds the source until ctx is done. It returns an error only for what no retry can repair.
	Run(ctx context.Context) error
	// Changed receives one value after Input began to differ; notices that nobody took yet are merged into one.
	Changed() <-chan struct{}
	// Input returns what is known now. It may be called from any goroutine.
	Input() Input
}

// notice is a channel that merges what nobody took yet.
type notice chan struct{}

func newNotice() notice { return make(notice, 1) }

func (n notice) give() {
	select {
	case n <- struct{}{}:
	default:
	}
}
