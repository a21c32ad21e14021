package source

import (
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/ravencni/raven/pkg/topology"
)

// sameInput compares by value. Objects that both share are not looked into, which makes it cheap where one of ten
// thousand changed.
func sameInput(a, b Input) bool {
	return a.Synced == b.Synced && a.Waiting == b.Waiting && a.Emptied == b.Emptied &&
		slices.Equal(a.Problems, b.Problems) && slices.Equal(a.Throws, b.Throws) && SameState(a.State, b.State)
}

// SameState compares by value, and is as cheap.
func SameState(a, b topology.State) bool {
	return sameObjects(a.Gateways, b.Gateways) && sameObjects(a.Nodes, b.Nodes) &&
		sameObjects(a.Endpoints, b.Endpoints) && reflect.DeepEqual(a.Config, b.Config)
}

func sameObjects[T any](a, b []*T) bool {
	return slices.EqualFunc(a, b, func(x, y *T) bool { return x == y || equality.Semantic.DeepEqual(x, y) })
}
