// Package rotatekey asks a node's agent to change the key of its tunnels, and waits until it has.
package rotatekey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Change is what became of one node's key.
type Change struct {
	Node string `json:"node"`
	// Before and After are public keys.
	Before string `json:"before"`
	After  string `json:"after"`
	// Seconds from the request to the agent's word that the new key is in use.
	Seconds float64 `json:"seconds"`
}

// askEvery is how often the node's TunnelEndpoint is read while its agent works.
const askEvery = 200 * time.Millisecond

// Run changes the key of a node. It ends when the node has begun to use the new one, or with ctx; the request then stays,
// and the agent serves it when it is back.
func Run(ctx context.Context, config *rest.Config, node string) (Change, error) {
	scheme := runtime.NewScheme()
	if err := v1beta1.AddToScheme(scheme); err != nil {
		return Change{}, fmt.Errorf("register the Raven types: %w", err)
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return Change{}, fmt.Errorf("make a client of the API server at %s: %w", config.Host, err)
	}
	begin := time.Now()
	te := &v1beta1.TunnelEndpoint{}
	te.Name = node
	switch err := api.Get(ctx, client.ObjectKeyFromObject(te), te); {
	case apierrors.IsNotFound(err):
		return Change{}, fmt.Errorf("node %s has no TunnelEndpoint: see kubectl get tunnelendpoints for the nodes whose agents run", node)
	case err != nil:
		return Change{}, fmt.Errorf("read TunnelEndpoint %s: %w", node, err)
	}
	change := Change{Node: node, Before: key(te)}
	if change.Before == "" {
		return change, fmt.Errorf("node %s has published no key: it is in no region, or its tunnel driver has none", node)
	}
	request := begin.UTC().Format(time.RFC3339Nano)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1beta1.AnnotationRotateKey, request)
	if err := api.Patch(ctx, te, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		return change, fmt.Errorf("ask node %s for another key: %w", node, err)
	}
	if err := await(ctx, api, te, request); err != nil {
		return change, err
	}
	change.After, change.Seconds = key(te), time.Since(begin).Seconds()
	return change, nil
}

// await reads te until its agent has served the request, or says why it cannot.
func await(ctx context.Context, api client.Reader, te *v1beta1.TunnelEndpoint, request string) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var last error
	for {
		if err := api.Get(ctx, client.ObjectKeyFromObject(te), te); ctx.Err() == nil {
			last = err // the API server may be away for a moment
		}
		if last == nil && te.Status.KeyRequest == request {
			return nil
		}
		at := slices.IndexFunc(te.Status.Problems, func(p v1beta1.Problem) bool { return p.Reason == "KeyNotChanged" })
		if last == nil && at >= 0 {
			return fmt.Errorf("node %s: %s", te.Name, te.Status.Problems[at].Message)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the agent on node %s has not changed its key yet: see that it runs; the request stays, "+
				"and the agent serves it when it can: %w", te.Name, context.Cause(ctx)), last)
		}
	}
}

// key is the first that the node published; other drivers have none.
func key(te *v1beta1.TunnelEndpoint) string {
	for _, t := range te.Status.Tunnels {
		if t.PublicKey != "" {
			return t.PublicKey
		}
	}
	return ""
}
