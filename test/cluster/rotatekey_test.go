package cluster_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/ctl/rotatekey"
)

// The agent's part is played here; test/cluster/regions has the real one.
func TestAChangeOfAKeyIsAskedForAndAwaited(t *testing.T) {
	run := func(ctx context.Context, node string) (rotatekey.Change, error) {
		return rotatekey.Run(ctx, server.Admin(), node)
	}
	says := func(err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("got %v, want words %q", err, words)
		}
	}
	_, err := run(t.Context(), "nobody")
	says(err, "node nobody has no TunnelEndpoint")
	te := create(t, endpoints, endpoint(t, "edge-1"))
	_, err = run(t.Context(), "edge-1")
	says(err, "node edge-1 has published no key")

	te = writeStatus(t, endpoints, te, `{tunnels: [{driver: wireguard, publicKey: old}]}`)
	ctx, stop := context.WithTimeoutCause(t.Context(), 2*time.Second, errors.New("no more patience"))
	defer stop()
	_, err = run(ctx, "edge-1")
	says(err, "the request stays")
	says(err, "no more patience")

	type answer struct {
		change rotatekey.Change
		err    error
	}
	ask := func() (request string, answers chan answer) {
		t.Helper()
		answers = make(chan answer, 1)
		te, err = client(t, server.Admin()).Resource(endpoints).Get(t.Context(), "edge-1", metav1.GetOptions{})
		must(t, err)
		last := te.GetAnnotations()[v1beta1.AnnotationRotateKey]
		go func() {
			change, err := run(t.Context(), "edge-1")
			answers <- answer{change, err}
		}()
		awaitTrue(t, "the request", func() bool {
			te, err = client(t, server.Admin()).Resource(endpoints).Get(t.Context(), "edge-1", metav1.GetOptions{})
			must(t, err)
			request = te.GetAnnotations()[v1beta1.AnnotationRotateKey]
			return request != last
		})
		return request, answers
	}
	request, answers := ask()
	te = writeStatus(t, endpoints, te, `{tunnels: [{driver: wireguard, publicKey: new}], keyRequest: "`+request+`"}`)
	if got := <-answers; got.err != nil || got.change.Before != "old" || got.change.After != "new" {
		t.Errorf("got %+v", got)
	}
	_, answers = ask()
	writeStatus(t, endpoints, te, `{tunnels: [{driver: wireguard, publicKey: new}], keyRequest: "`+request+`",
		problems: [{object: TunnelEndpoint/edge-1, reason: KeyNotChanged, message: the disk is full}]}`)
	says((<-answers).err, "node edge-1: the disk is full")
}
