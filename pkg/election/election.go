package election

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Reasons of a Decision; they become the reason of the conditions TunnelElected and ProxyElected.
const (
	// ReasonElected: as many active nodes as wanted, all ready.
	ReasonElected = "Elected"
	// ReasonTooFewReady: some active nodes are ready, but fewer than wanted.
	ReasonTooFewReady = "TooFewReady"
	// ReasonNoCandidateReady: no candidate is ready, a partition most often; the last active nodes stay.
	ReasonNoCandidateReady = "NoCandidateReady"
	// ReasonNoCandidate: some listed nodes are unknown, the others outside the region.
	ReasonNoCandidate = "NoCandidate"
	// ReasonUnknownNode: there is no Node object of any listed name.
	ReasonUnknownNode = "UnknownNode"
	// ReasonNotMember: every listed node is outside the region, for want of the label most often.
	ReasonNotMember = "NotMember"
	// ReasonNoEndpoints: no endpoint of the type is listed.
	ReasonNoEndpoints = "NoEndpoints"
	// ReasonNoReplicas: none is wanted.
	ReasonNoReplicas = "NoReplicas"
	// ReasonChangeDelayed: an active node is not ready and another is, but that, or the last change, is too recent.
	ReasonChangeDelayed = "ChangeDelayed"
)

// Reasons of a Rejection.
const (
	RejectedUnknownNode = ReasonUnknownNode
	RejectedNotMember   = ReasonNotMember
	RejectedNotReady    = "NotReady"
	RejectedDuplicate   = "Duplicate"
)

// Candidate is a listed endpoint's node.
type Candidate struct {
	NodeName string
	// Exists: there is a Node object of that name.
	Exists bool
	// Member: the node belongs to the region.
	Member bool
	// NotMember says why not and what to do, for the message; may be empty.
	NotMember string
	// Ready: the node can serve. What that means is the caller's: node readiness, the agent's own report.
	Ready bool
	// NotReady says why not, for the message; may be empty.
	NotReady string
	// NotReadySince is when the node stopped being ready; zero: not known, or long ago.
	NotReadySince time.Time
}

// gone tells that the node can no longer hold a role, whatever its health.
func (c Candidate) gone() bool { return !c.Exists || !c.Member }

// Input of one election: one gateway, one type of endpoint.
type Input struct {
	// Candidates in the order of spec.endpoints.
	Candidates []Candidate
	// Replicas is how many active nodes are wanted.
	Replicas int
	// Current names the active nodes.
	Current []string
	// Now, and LastChange of this election's outcome (zero: none known), serve MinInterval only.
	Now, LastChange time.Time
	// MinInterval is the least time between two changes by which a node loses its role although it still exists; zero:
	// no limit. Filling the place of a node that is gone never waits.
	MinInterval time.Duration
	// Settle is how long an active node must have been unready before it loses its role although it still exists; zero: no
	// time. Where the control plane itself was away all nodes become unready, one after the other, and none of it means
	// that a tunnel has failed.
	Settle time.Duration
}

// Decision is the outcome.
type Decision struct {
	// Active names the active nodes, sorted.
	Active []string
	// Changed is true where Active differs from the Input's Current.
	Changed bool
	// Elected is true where at least one active node is ready.
	Elected bool
	// Reason and Message explain the outcome; the message names each rejected candidate.
	Reason, Message string
	// Rejected lists the candidates that cannot serve, in the order of the Input.
	Rejected []Rejection
	// RetryAfter is when a delayed change becomes possible; zero: nothing is delayed.
	RetryAfter time.Duration
}

// Rejection says why a listed node cannot serve.
type Rejection struct {
	NodeName, Reason, Message string
}

// Elect chooses the active nodes. Those that are active and ready stay, even where a node earlier in the list has become
// ready: moving a tunnel costs connections. Vacancies fill in list order. An active node that is not ready keeps its role
// until a ready one takes it, since the control plane's view may be cut off while the tunnel works. Scaling down drops
// unready nodes first, then the last in list order.
func Elect(in Input) Decision {
	var d Decision
	candidates := d.review(in.Candidates)
	active := make(map[string]bool, len(in.Current))
	for _, name := range in.Current {
		active[name] = true
	}
	var holding, wavering, waiting []string // active and ready; active and not; ready and not active
	var settling time.Duration              // until the last of the wavering ones counts as unready
	for _, c := range candidates {
		switch {
		case c.gone():
		case active[c.NodeName] && c.Ready:
			holding = append(holding, c.NodeName)
		case active[c.NodeName]:
			wavering = append(wavering, c.NodeName)
			if !c.NotReadySince.IsZero() {
				settling = max(settling, remaining(in.Settle, in.Now, c.NotReadySince))
			}
		case c.Ready:
			waiting = append(waiting, c.NodeName)
		}
	}
	ready := len(holding) + len(waiting)

	chosen := slices.Concat(holding, waiting, wavering)
	wait := settling
	if !in.LastChange.IsZero() {
		wait = max(wait, remaining(in.MinInterval, in.Now, in.LastChange))
	}
	if wait > 0 {
		damped := slices.Concat(holding, wavering, waiting)
		if !sameSet(first(damped, in.Replicas), first(chosen, in.Replicas)) {
			d.RetryAfter = wait
		}
		chosen = damped
	}
	d.Active = first(chosen, in.Replicas)
	for _, name := range d.Active {
		d.Elected = d.Elected || !slices.Contains(wavering, name)
	}
	d.Changed = !sameSet(d.Active, in.Current)
	d.explain(in, slices.ContainsFunc(candidates, func(c Candidate) bool { return !c.gone() }), ready)
	slices.Sort(d.Active)
	return d
}

// remaining is what is left of a time that began at since. A clock that is behind makes it no longer than the whole.
func remaining(whole time.Duration, now, since time.Time) time.Duration {
	return max(0, min(whole, whole-now.Sub(since)))
}

// review drops nodes that are listed twice and notes why candidates cannot serve.
func (d *Decision) review(in []Candidate) []Candidate {
	var out []Candidate
	for _, c := range in {
		reject := func(reason, message string) {
			d.Rejected = append(d.Rejected, Rejection{c.NodeName, reason, message})
		}
		switch {
		case slices.ContainsFunc(out, func(o Candidate) bool { return o.NodeName == c.NodeName }):
			reject(RejectedDuplicate, "is listed more than once")
			continue
		case !c.Exists:
			reject(RejectedUnknownNode, "does not exist")
		case !c.Member:
			reject(RejectedNotMember, cmp.Or(c.NotMember, "is not in this region"))
		case !c.Ready:
			reject(RejectedNotReady, cmp.Or(c.NotReady, "is not ready"))
		}
		out = append(out, c)
	}
	return out
}

// all tells whether every candidate was rejected for this one reason; one that is listed twice counts once.
func (d *Decision) all(reason string) bool {
	return !slices.ContainsFunc(d.Rejected, func(r Rejection) bool { return r.Reason != reason && r.Reason != RejectedDuplicate })
}

func (d *Decision) explain(in Input, members bool, ready int) {
	say := func(reason, format string, args ...any) {
		d.Reason, d.Message = reason, fmt.Sprintf(format, args...)
	}
	names := strings.Join(d.Active, ", ")
	switch {
	case in.Replicas <= 0:
		say(ReasonNoReplicas, "replicas is 0, so nobody is elected")
	case len(in.Candidates) == 0:
		say(ReasonNoEndpoints, "spec.endpoints lists no endpoint of this type: add one")
	case d.RetryAfter > 0:
		// No countdown: the message would differ, and be written, each time that it is looked at.
		say(ReasonChangeDelayed, "%s keeps the role until it was unready for %s, and until %s after its last change", names,
			in.Settle, in.MinInterval)
	case !members && d.all(RejectedUnknownNode):
		say(ReasonUnknownNode, "no listed node exists: correct the names in spec.endpoints")
	case !members && d.all(RejectedNotMember):
		say(ReasonNotMember, "no listed node is in this region")
	case !members:
		say(ReasonNoCandidate, "no listed node is in this region")
	case ready == 0 && len(d.Active) == 0:
		say(ReasonNoCandidateReady, "no listed node is ready")
	case ready == 0:
		say(ReasonNoCandidateReady, "no listed node is ready; the last elected stay: %s", names)
	case ready < in.Replicas:
		say(ReasonTooFewReady, "%d of %d wanted nodes are ready: %s", ready, in.Replicas, names)
	default:
		say(ReasonElected, "elected: %s", names)
	}
	for i, r := range d.Rejected {
		separator := ", "
		if i == 0 {
			separator = "; "
		}
		d.Message += separator + r.NodeName + " " + r.Message
	}
}

// first returns a copy of the first n items, or of all.
func first(in []string, n int) []string {
	return slices.Clone(in[:max(0, min(n, len(in)))])
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
