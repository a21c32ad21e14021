package source

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// What a real API server says while it deletes a CRD is tried in test/cluster.

// gatewaysThatMayLeave lists two gateways, and lets an API server say verbs about their kind.
func gatewaysThatMayLeave(t *testing.T, verbs string) (*Kube, *store[v1beta1.Gateway, *v1beta1.Gateway]) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if verbs == "" || r.URL.Path != "/apis/raven.openyurt.io/v1beta1" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"kind": "APIResourceList", "resources": [{"name": "gateways", "verbs": [%s]}]}`, verbs)
	}))
	t.Cleanup(server.Close)
	k := kube(t, server.URL, nil)
	listAll(t, k, gw("a"), gw("b"))
	gateways := k.gatewayStore()
	gateways.leaving = newLeaving()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		gateways.confirmDeletions(t.Context(), "gateways")
	}()
	t.Cleanup(func() { <-ended })
	return k, gateways
}

func TestADeletionCountsAfterAPauseUnlessTheKindItselfIsGoing(t *testing.T) {
	for _, c := range []struct {
		name, verbs string
		deleted     []string
		want, why   string
	}{
		{"one of two, whatever becomes of the kind", "", []string{"a"}, "[b]", ""},
		{"the last ones", `"get", "create", "delete"`, []string{"a", "b"}, "[]", ""},
		{"together with their kind", `"get", "delete"`, []string{"a", "b"}, "[a b]", "is being deleted"},
		{"after their kind", "", []string{"a", "b"}, "[a b]", "could not find"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k, gateways := gatewaysThatMayLeave(t, c.verbs)
			for _, name := range c.deleted {
				must(t, gateways.Delete(gw(name)))
			}
			if got := gatewayNames(k.Input()); got != "[a b]" {
				t.Errorf("at once there are %s", got)
			}
			in := await(t, k, "a decision", func(in Input) bool { return gatewayNames(in) == c.want && (c.why == "") == (len(in.Problems) == 0) })
			if in.Emptied != (c.want == "[]") || (c.why != "" && !strings.Contains(in.Problems[0].Message, c.why)) {
				t.Errorf("emptied %t, problems %v", in.Emptied, in.Problems)
			}
		})
	}
}

func TestAnObjectThatComesBackWithinThePauseWasNeverGone(t *testing.T) {
	k, gateways := gatewaysThatMayLeave(t, `"create"`)
	must(t, gateways.Delete(gw("a")), gateways.Delete(gw("b")), gateways.Add(gw("a")))
	in := await(t, k, "the deletion of the other one", func(in Input) bool { return gatewayNames(in) != "[a b]" })
	if gatewayNames(in) != "[a]" || in.Emptied {
		t.Errorf("gateways %s, emptied %t", gatewayNames(in), in.Emptied)
	}
}
