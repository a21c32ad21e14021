package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// settle is how long the peers have to take this node's next key after the API server has told everybody of it: an
// agent's pass takes a few milliseconds, and up to half a second where passes are damped. A peer that is later still gets
// the next attempt of a handshake, 5 s on.
const settle = time.Second

// rotation is a change of the node's key that is under way: the next key is published, the peers take it, the device does.
type rotation struct {
	// next is the public half that is published in the present one's place; empty: nothing is under way.
	next string
	// seen is since when the API server has the next key; zero: it does not.
	seen time.Time
	wake *time.Timer
}

// rotateKey begins or carries on what the annotation of the node's TunnelEndpoint asks for.
func (a *Agent) rotateKey(ctx context.Context, state topology.State, now time.Time) {
	delete(a.problemsNow, "rotation")
	request := rotationAsked(state.Endpoints, a.Node)
	if request == "" || a.Standalone { // a manifest is rewritten with each publication, and a request in it would be lost
		a.rotation.end()
		return
	}
	err := a.carryOn(ctx, request, publishedKey(state.Endpoints, a.Node, a.driver.Name()), now)
	if err != nil {
		a.problemsNow["rotation"] = []topology.Problem{{
			Object: "TunnelEndpoint/" + a.Node, Reason: "KeyNotChanged",
			Message: fmt.Sprintf("the change of the key that annotation %s asks for: %s", v1beta1.AnnotationRotateKey, oneLine(err)),
		}}
	}
}

func (a *Agent) carryOn(ctx context.Context, request, published string, now time.Time) error {
	rotator, can := a.driver.(tunnel.KeyRotator)
	if !can {
		a.rotation.end()
		return fmt.Errorf("driver %s has no key of the node's own; remove the annotation", a.driver.Name())
	}
	next, err := rotator.NextKey(ctx, request)
	if err != nil {
		return err
	}
	if next == "" { // done before
		a.keyRequest = request
		a.rotation.end()
		return nil
	}
	if a.rotation.next != next {
		a.Log.Info("the node's key is to be changed; the peers are told first", "next", next, "request", request)
		a.rotation.end()
		a.rotation.next = next
	}
	if published != next {
		a.rotation.seen = time.Time{}
		return nil
	}
	if a.rotation.seen.IsZero() {
		a.rotation.seen = now
		a.rotation.wake = time.AfterFunc(settle, func() { a.notices.give(Notice{What: "key change"}) })
	}
	if now.Sub(a.rotation.seen) < settle {
		return nil
	}
	if err := rotator.SwitchKey(ctx); err != nil {
		return err
	}
	a.Log.Info("the node's key has changed", "key", next, "request", request)
	a.keyRequest = request
	a.rotation.end()
	return nil
}

func (r *rotation) end() {
	if r.wake != nil {
		r.wake.Stop()
	}
	*r = rotation{}
}

// rotationAsked is what the annotation of a node's TunnelEndpoint says.
func rotationAsked(known []*v1beta1.TunnelEndpoint, node string) string {
	for _, te := range known {
		if te.Name == node {
			return te.Annotations[v1beta1.AnnotationRotateKey]
		}
	}
	return ""
}
