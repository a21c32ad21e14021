package publish

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// API publishes to the status of the TunnelEndpoint object that has the node's name, and makes the object if there is
// none. An agent may write this one object only.
type API struct {
	Client rest.Interface
	Node   string
}

const resource = "tunnelendpoints"

// Put implements Target.
func (a API) Put(ctx context.Context, status v1beta1.TunnelEndpointStatus) (bool, error) {
	te := &v1beta1.TunnelEndpoint{}
	err := a.Client.Get().Resource(resource).Name(a.Node).Do(ctx).Into(te)
	if apierrors.IsNotFound(err) {
		te = &v1beta1.TunnelEndpoint{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1beta1.GroupVersion.String(), Kind: "TunnelEndpoint"},
			ObjectMeta: metav1.ObjectMeta{Name: a.Node},
		}
		if err := a.Client.Post().Resource(resource).Body(te).Do(ctx).Into(te); err != nil {
			return false, fmt.Errorf("create TunnelEndpoint %s: %w", a.Node, err)
		}
	} else if err != nil {
		return false, fmt.Errorf("read TunnelEndpoint %s: %w", a.Node, err)
	}
	if equality.Semantic.DeepEqual(te.Status, status) {
		return false, nil
	}
	te.Status = status
	// A conflict means that somebody wrote meanwhile: the next attempt reads again.
	if err := a.Client.Put().Resource(resource).Name(a.Node).SubResource("status").Body(te).Do(ctx).Error(); err != nil {
		return false, fmt.Errorf("write the status of TunnelEndpoint %s: %w", a.Node, err)
	}
	return true, nil
}

var (
	_ Target = Dir{}
	_ Target = API{}
)
