package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/ravencni/raven/pkg/topology"
)

// maxProblems bounds what a node names, in log, metric and published status alike: an object of the API and a page of
// metrics have to stay small.
const maxProblems = 100

// clusterWide are the origins whose problems all agents know alike; the others are this node's own.
var clusterWide = map[string]bool{"source": true, "plan": true, "elected": true}

// gather returns the problems that this node names, sorted, and counts those that others do. Its own come first where
// there are too many.
func (a *Agent) gather() (named []topology.Problem, elsewhere int) {
	var own, known []topology.Problem
	for _, from := range slices.Sorted(maps.Keys(a.problemsNow)) {
		for _, p := range a.problemsNow[from] {
			switch {
			case !clusterWide[from]:
				own = append(own, p)
			case a.scope == nil || a.scope.Names(p):
				known = append(known, p)
			default:
				elsewhere++
			}
		}
	}
	sortProblems(own)
	sortProblems(known)
	named = append(own, known...)
	if more := len(named) - maxProblems; more > 0 {
		named = append(named[:maxProblems:maxProblems], topology.Problem{
			Object: "Node/" + a.Node, Reason: "MoreProblems",
			Message: fmt.Sprintf("and %d more, which show once these are corrected", more),
		})
	}
	sortProblems(named)
	return named, elsewhere
}

func sortProblems(problems []topology.Problem) {
	slices.SortStableFunc(problems, func(a, b topology.Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
}
