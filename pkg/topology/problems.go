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

func (p *problems) add(object, reason, format string, args ...any) {
	p.list = append(p.list, Problem{Object: object, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// sorted returns the problems in the Plan's order, each once.
func (p *problems) sorted() []Problem {
	slices.SortFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(p.list)
}

func nodeObject(name string) string     { return "Node/" + name }
func gatewayObject(name string) string  { return "Gateway/" + name }
func endpointObject(name string) string { return "TunnelEndpoint/" + name }

const (
	serviceObject = "ServiceCIDR"
	configObject  = "Config/raven"
)
