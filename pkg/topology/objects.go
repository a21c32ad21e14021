package topology

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// named is what the planner needs to know of an object to put it in order.
type named interface {
	comparable
	GetName() string
}

func uniqueGateways(in []*v1beta1.Gateway, p *problems) []*v1beta1.Gateway {
	return unique(in, gatewayObject, p)
}

func uniqueNodes(in []*corev1.Node, p *problems) []*corev1.Node {
	return unique(in, nodeObject, p)
}

func uniqueEndpoints(in []*v1beta1.TunnelEndpoint, p *problems) []*v1beta1.TunnelEndpoint {
	return unique(in, endpointObject, p)
}

// unique returns the objects sorted by name, without nil ones. An API server never has two of one name, but a folder of
// manifests may: the one whose JSON sorts first is kept then, so that the order of files does not matter.
func unique[T named](in []T, object func(string) ref, p *problems) []T {
	var none T
	out := make([]T, 0, len(in))
	for _, o := range in {
		switch {
		case o == none:
		case o.GetName() == "":
			p.add(object(""), ReasonDuplicateObject, "an object has no metadata.name and is left out: give it one")
		default:
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b T) int {
		if c := cmp.Compare(a.GetName(), b.GetName()); c != 0 || a == b {
			return c
		}
		return bytes.Compare(content(a), content(b))
	})
	kept := out[:0]
	for _, o := range out {
		if len(kept) > 0 && kept[len(kept)-1].GetName() == o.GetName() {
			p.add(object(o.GetName()), ReasonDuplicateObject,
				"there are several objects of this name and one is used: remove the others")
			continue
		}
		kept = append(kept, o)
	}
	return kept
}

// content of an object to order duplicates by; equal where it cannot be written, which no decoded object is.
func content(o any) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		return nil
	}
	return b
}
