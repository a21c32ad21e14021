package controller

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/election"
)

// maxNote is the length of an event's note that the API server takes.
const maxNote = 1024

// roleChange says in the words of one event how the active endpoints of a type have changed: somebody was elected, or
// somebody's role was lost and nobody took it.
func roleChange(kind v1beta1.EndpointType, before []string, d election.Decision) (event, reason, note string) {
	lost, won := minus(before, d.Active), minus(d.Active, before)
	why := func(name string) string {
		for _, r := range d.Rejected {
			if r.NodeName == name {
				return name + " " + r.Message
			}
		}
		return name + " left the list or is one too many"
	}
	for i, name := range lost {
		lost[i] = why(name)
	}
	switch {
	case len(won) == 0:
		event, reason = corev1.EventTypeWarning, EventLost
		note = fmt.Sprintf("%s endpoint lost: %s; nobody takes the role: %s", kind, strings.Join(lost, ", "), d.Message)
	case len(lost) == 0:
		event, reason = corev1.EventTypeNormal, EventElected
		note = fmt.Sprintf("%s endpoint elected: %s", kind, strings.Join(won, ", "))
	default:
		event, reason = corev1.EventTypeNormal, EventElected
		note = fmt.Sprintf("%s endpoint elected: %s; before: %s", kind, strings.Join(won, ", "), strings.Join(lost, ", "))
	}
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote-3], "") + "..."
	}
	return event, reason, note
}

// minus returns the names of a that are not in b.
func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(name string) bool { return slices.Contains(b, name) })
}
