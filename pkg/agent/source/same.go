package source

import (
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
)

// sameInput compares by value. Objects that both share are not looked into, which makes it cheap where one of ten
// thousand changed.
func sameInput(a, b Input) bool {
	return a.Synced == b.Synced && a.Waiting == b.Waiting && a.Emptied == b.Emptied &&
		slices.Equal(a.Problems, b.Problems) && slices.Equal(a.Throws, b.Throws) &&
		sameObjects(a.State.Gateways, b.State.Gateways) && sameObjects(a.State.Nodes, b.State.Nodes) &&
		sameObjects(a.State.Endpoints, b.State.Endpoints) && reflect.DeepEqual(a.State.Config, b.State.Config)
}

func sameObjects[T any](a, b []*T) bool {
	return slices.EqualFunc(a, b, func(x, y *T) bool { return x == y || equality.Semantic.DeepEqual(x, y) })
}
