package source

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// Where a CRD is deleted the API server deletes every object of it, one by one, and the watch tells of each as if a user
// had. So a deletion of one of Raven's own objects counts once deletions have paused, and the kind itself is still there
// wherever none of it would be left.
const (
	// pause between deletions after which they count.
	pause = time.Second
	// longestDoubt bounds the wait where deletions never pause: a key must be gone within 10 s of its node.
	longestDoubt = 5 * time.Second
	// askEvery is how often the kind is asked for, where none of it would be left.
	askEvery = 100 * time.Millisecond
)

// leaving are the objects of one kind that the watch saw deleted, and that still count.
type leaving struct {
	names map[string]bool // under Kube.mu
	more  notice
}

func newLeaving() *leaving { return &leaving{names: map[string]bool{}, more: newNotice()} }

// confirmDeletions decides on deletions until ctx is done.
func (s *store[T, P]) confirmDeletions(ctx context.Context, resource string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.leaving.more:
		}
		why := s.doubt(ctx, resource)
		if ctx.Err() != nil {
			return
		}
		if why == "" {
			s.forget()
		} else {
			s.hold(why)
		}
	}
}

// doubt waits until deletions pause, and says why they do not count; empty: they do.
func (s *store[T, P]) doubt(ctx context.Context, resource string) string {
	longest := time.NewTimer(longestDoubt)
	defer longest.Stop()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ""
		case <-longest.C:
			return s.kube.notServed(ctx, resource)
		case <-s.leaving.more:
			last = time.Now()
		case <-tick.C:
			if s.emptying() {
				if why := s.kube.notServed(ctx, resource); why != "" {
					return why
				}
			}
			if time.Since(last) >= pause {
				return ""
			}
		}
	}
}

// emptying says whether none of the kind would be left.
func (s *store[T, P]) emptying() bool {
	s.kube.mu.Lock()
	defer s.kube.mu.Unlock()
	return len(s.leaving.names) == len(*s.held)
}

func (s *store[T, P]) forget() {
	s.kube.change(func() {
		for name := range s.leaving.names {
			delete(*s.held, name)
		}
		clear(s.leaving.names)
		if s.kind == kindGateways && len(*s.held) == 0 {
			s.kube.emptied = true
		}
	})
}

func (s *store[T, P]) hold(why string) {
	s.kube.change(func() {
		s.kube.vanished[s.kind] = topology.Problem{
			Object: apiServer, Reason: ReasonNothingLeft,
			Message: fmt.Sprintf("it deleted %d %s together with their kind (%s); the last known ones stay: apply Raven's CRDs "+
				"and the objects again, or set enable-l3-tunnel to \"false\" in ConfigMap kube-system/raven-cfg to take Raven "+
				"off the nodes", len(s.leaving.names), s.kind, why),
		}
		clear(s.leaving.names)
	})
}

// notServed says why a resource of Raven's is not being served as it should; empty: it is. While a CRD is being deleted
// its objects can be read and deleted, but not created.
func (k *Kube) notServed(ctx context.Context, resource string) string {
	content, err := k.clients.raven.Get().AbsPath("/apis", v1beta1.GroupVersion.Group, v1beta1.GroupVersion.Version).DoRaw(ctx)
	if err != nil {
		return err.Error()
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(content, &list); err != nil {
		return fmt.Sprintf("the list of kinds cannot be read: %v", err)
	}
	for _, r := range list.APIResources {
		if r.Name == resource {
			if slices.Contains(r.Verbs, "create") {
				return ""
			}
			return "the CRD is being deleted"
		}
	}
	return "the CRD is gone"
}
