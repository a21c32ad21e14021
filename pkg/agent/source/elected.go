package source

import (
	"time"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// ReasonStatusLost: a Gateway came back without its status; who was active before stays so until the controller elects.
const ReasonStatusLost = "StatusLost"

// forgetAfter is how long a Gateway that is gone is remembered: it bounds the time in which a restore from a backup, or
// a tool that deletes and makes objects anew, is known for what it is.
const forgetAfter = 10 * time.Minute

// Elected remembers who was active in each Gateway. A Gateway that comes back without a status (a backup's restore,
// kubectl replace, a tool that deletes and makes it anew) has lost the controller's word, and nobody decided to take its
// tunnels down.
type Elected struct{ last map[string]*lastWord }

// lastWord is what a controller said last of a Gateway.
type lastWord struct {
	status v1beta1.GatewayStatus
	seen   time.Time
	// lost is the object whose status was filled in last, and filled what became of it: an unchanged input gives
	// unchanged objects.
	lost, filled *v1beta1.Gateway
}

// NewElected starts from the Gateways of the last good input.
func NewElected(known []*v1beta1.Gateway, now time.Time) *Elected {
	e := &Elected{last: map[string]*lastWord{}}
	e.Keep(known, now)
	return e
}

// Keep returns the Gateways with the last known active endpoints and nodes filled into those that have neither active
// endpoints nor any condition, which the controller writes whatever it decides. It names them, and changes no object.
func (e *Elected) Keep(gateways []*v1beta1.Gateway, now time.Time) ([]*v1beta1.Gateway, []topology.Problem) {
	var problems []topology.Problem
	out := gateways
	for i, g := range gateways {
		if g == nil {
			continue
		}
		known := e.last[g.Name]
		if hasWord(g.Status) {
			if known == nil {
				known = &lastWord{}
				e.last[g.Name] = known
			}
			known.status, known.seen, known.lost, known.filled = g.Status, now, nil, nil
			continue
		}
		if known == nil || !hasActive(known.status) {
			continue // a new one, or nobody was active before
		}
		if known.seen = now; known.lost != g {
			known.lost, known.filled = g, fill(g, known.status)
		}
		if len(problems) == 0 {
			out = append([]*v1beta1.Gateway(nil), gateways...)
		}
		out[i] = known.filled
		problems = append(problems, topology.Problem{
			Object: "Gateway/" + g.Name, Reason: ReasonStatusLost,
			Message: "it came back without a status; its last known active endpoints stay until raven-controller elects: " +
				"see that the controller runs",
		})
	}
	for name, known := range e.last {
		if now.Sub(known.seen) > forgetAfter {
			delete(e.last, name)
		}
	}
	return out, problems
}

func fill(g *v1beta1.Gateway, last v1beta1.GatewayStatus) *v1beta1.Gateway {
	filled := *g
	filled.Status.ActiveEndpoints, filled.Status.ActiveEndpoint = last.ActiveEndpoints, last.ActiveEndpoint
	if len(filled.Status.Nodes) == 0 {
		filled.Status.Nodes = last.Nodes
	}
	return &filled
}

// hasWord says whether a controller decided about the Gateway, if only that nobody can be active.
func hasWord(s v1beta1.GatewayStatus) bool { return hasActive(s) || len(s.Conditions) > 0 }

func hasActive(s v1beta1.GatewayStatus) bool {
	return len(s.ActiveEndpoints) > 0 || s.ActiveEndpoint != nil
}
