package agent

import (
	"context"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
)

// rotatingDriver is a fake whose key can be changed.
type rotatingDriver struct {
	*fakeDriver
	key, next, done string
}

func (d *rotatingDriver) PublicKey(context.Context) (string, error) { return d.key, nil }

func (d *rotatingDriver) NextKey(_ context.Context, request string) (string, error) {
	if request == d.done {
		return d.next, nil
	}
	d.done, d.next = request, "key for "+request
	return d.next, nil
}

func (d *rotatingDriver) SwitchKey(context.Context) error {
	d.note("switch")
	d.key, d.next = d.next, ""
	return nil
}

// asked is the cluster with a request for b1, whose TunnelEndpoint has this key.
func asked(request, published string) source.Input {
	in := cluster()
	te := in.State.Endpoints[1].DeepCopy()
	te.Annotations = map[string]string{v1beta1.AnnotationRotateKey: request}
	te.Status.Tunnels[0].PublicKey = published
	in.State.Endpoints[1] = te
	return in
}

func TestAKeyIsChangedOnceEverybodyKnowsTheNextOne(t *testing.T) {
	d := &rotatingDriver{key: "old"}
	b := newBench(t, "b1", func(p *Parts) {
		p.Drivers[0].New = func() (tunnel.Driver, error) { return d, nil }
	})
	d.fakeDriver = b.wireguard
	b.pass(cluster())
	if got := b.view().PublicKey; got != "old" {
		t.Fatalf("before: %q", got)
	}
	b.pass(asked("one", "old"))
	if got := b.view().PublicKey; got != "key for one" || d.key != "old" {
		t.Fatalf("after the request it publishes %q and uses %q", got, d.key)
	}
	begin := time.Now()
	b.pass(asked("one", "key for one"))
	if d.key != "old" {
		t.Fatal("it took the next key at once")
	}
	stop := b.start()
	b.await("the new key in use without another change of the input", func() bool {
		return b.log.has("the node's key has changed")
	})
	if took := time.Since(begin); took < settle {
		t.Errorf("the peers had %v, want %v", took, settle)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if d.key != "key for one" {
		t.Errorf("it uses %q", d.key)
	}
	if got := b.view().KeyRequest; got != "one" {
		t.Errorf("it says that it served request %q", got)
	}
	b.pass(asked("one", "key for one")) // the annotation stays: the request was served
	if d.key != "key for one" || b.view().PublicKey != "key for one" {
		t.Errorf("the same request made it %q", d.key)
	}
}

func TestARequestThatEndsOrCannotBeServedChangesNothing(t *testing.T) {
	d := &rotatingDriver{key: "old"}
	b := newBench(t, "b1", func(p *Parts) {
		p.Drivers[0].New = func() (tunnel.Driver, error) { return d, nil }
	})
	d.fakeDriver = b.wireguard
	b.pass(asked("one", "old"))
	b.pass(cluster()) // somebody took the annotation back
	if got := b.view().PublicKey; got != "old" || d.key != "old" {
		t.Errorf("it publishes %q and uses %q", got, d.key)
	}

	b = newBench(t, "b1")
	in := asked("one", "")
	in.State.Endpoints[1].Status.Tunnels = cluster().State.Endpoints[1].Status.Tunnels
	b.pass(in)
	if got := b.view().PublicKey; got != "key of wireguard" {
		t.Errorf("a driver without keys of its own publishes %q", got)
	}
	want := topology.Problem{Object: "TunnelEndpoint/b1", Reason: "KeyNotChanged",
		Message: "the change of the key that annotation raven.openyurt.io/rotate-key asks for: driver wireguard has no key of " +
			"the node's own; remove the annotation"}
	if got := b.view().Problems; len(got) != 1 || got[0] != want {
		t.Errorf("problems %v", got)
	}
}
