package topology

import (
	"cmp"
	"fmt"
	"slices"
)

// problems collects what the planner left out.
type problems struct {
	list []Problem
}

func (p *problems) add(o ref, reason, format string, args ...any) {
	p.list = append(p.list, Problem{Object: o.String(), Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// sorted returns the problems in the Plan's order, each once.
func (p *problems) sorted() []Problem {
	slices.SortFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(p.list)
}

// ref names an object; the string is made only for the few that are reported.
type ref struct{ kind, name string }

func (r ref) String() string { return r.kind + "/" + r.name }

func nodeObject(name string) ref     { return ref{"Node", name} }
func gatewayObject(name string) ref  { return ref{"Gateway", name} }
func endpointObject(name string) ref { return ref{"TunnelEndpoint", name} }

var (
	configObject = ref{"ConfigMap", "raven-agent-config"}
	// serviceObject stands in Conflicts for the service ranges, which are no object.
	serviceObject = "ServiceCIDR"
)
