package publish_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/pkg/agent/publish"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func status(region string) v1beta1.TunnelEndpointStatus {
	return v1beta1.TunnelEndpointStatus{
		Gateway: region, Datapath: v1beta1.DatapathBaseline, Addresses: []string{"192.168.0.1"},
		Tunnels: []v1beta1.TunnelPort{{Driver: "wireguard", Port: 4500, PublicKey: "a2V5"}},
	}
}

func put(t *testing.T, d publish.Dir, s v1beta1.TunnelEndpointStatus, wantWrite bool) {
	t.Helper()
	if written, err := d.Put(context.Background(), s); err != nil || written != wantWrite {
		t.Fatalf("put: %t, %v; want %t", written, err, wantWrite)
	}
}

func TestAFolderGetsOneFileANodeAndOnlyChangesAreWritten(t *testing.T) {
	d := publish.Dir{Folder: filepath.Join(t.TempDir(), "made", "when-absent"), Node: "edge-1.example"}
	put(t, d, status("gw"), true)
	path := filepath.Join(d.Folder, "tunnelendpoint-edge-1.example.yaml")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var te v1beta1.TunnelEndpoint
	if err := yaml.UnmarshalStrict(content, &te); err != nil {
		t.Fatal(err)
	}
	if te.Kind != "TunnelEndpoint" || te.APIVersion != "raven.openyurt.io/v1beta1" || te.Name != "edge-1.example" ||
		te.Status.Tunnels[0].PublicKey != "a2V5" {
		t.Errorf("the file says %s", content)
	}
	if strings.Contains(string(content), "creationTimestamp") {
		t.Errorf("the file holds what no user wrote: %s", content)
	}

	for range 3 {
		put(t, d, status("gw"), false)
	}
	put(t, d, status("gw-2"), true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	put(t, d, status("gw-2"), true)
	if err := os.WriteFile(path, []byte("edited"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, d, status("gw-2"), true)
	if files, err := os.ReadDir(d.Folder); err != nil || len(files) != 1 {
		t.Errorf("the folder holds %v, %v", files, err)
	}
}

func TestAFolderThatCannotBeWrittenIsAnErrorThatNamesIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := publish.Dir{Folder: filepath.Join(file, "sub"), Node: "n1"}
	if _, err := d.Put(context.Background(), status("gw")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

// recorder is a fake target: it notes what it is given and fails as told.
type recorder struct {
	mu    sync.Mutex
	fail  int
	given chan v1beta1.TunnelEndpointStatus
}

func (r *recorder) Put(_ context.Context, s v1beta1.TunnelEndpointStatus) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.given <- s
	if r.fail > 0 {
		r.fail--
		return false, errors.New("away")
	}
	return true, nil
}

func run(t *testing.T, target publish.Target) *publish.Publisher {
	t.Helper()
	return start(t, publish.New(target, slog.New(slog.DiscardHandler)))
}

func start(t *testing.T, p *publish.Publisher) *publish.Publisher {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return p
}

func (r *recorder) next(t *testing.T) v1beta1.TunnelEndpointStatus {
	t.Helper()
	select {
	case s := <-r.given:
		return s
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was published")
		return v1beta1.TunnelEndpointStatus{}
	}
}

func TestOnlyTheLatestStatusIsPublishedAndAnEqualOneNever(t *testing.T) {
	r := &recorder{given: make(chan v1beta1.TunnelEndpointStatus, 16)}
	p := run(t, r)
	p.Set(status("gw-1"), false)
	if s := r.next(t); s.Gateway != "gw-1" {
		t.Errorf("published %s", s.Gateway)
	}
	p.Set(status("gw-1"), false)
	for _, region := range []string{"gw-2", "gw-3", "gw-4"} { // within the pause after a write
		p.Set(status(region), false)
	}
	if s := r.next(t); s.Gateway != "gw-4" {
		t.Errorf("published %s in between", s.Gateway)
	}
	p.Set(status("gw-4"), true) // readers do not see it
	if s := r.next(t); s.Gateway != "gw-4" {
		t.Errorf("published %s", s.Gateway)
	}
}

func TestATargetThatIsAwayGetsTheStatusWhenItIsBack(t *testing.T) {
	r := &recorder{given: make(chan v1beta1.TunnelEndpointStatus, 16), fail: 1}
	p := run(t, r)
	p.Set(status("gw-1"), false)
	r.next(t)
	p.Set(status("gw-2"), false)
	if s := r.next(t); s.Gateway != "gw-2" {
		t.Errorf("the second attempt published %s, which is stale", s.Gateway)
	}
}

func TestNewsThatNoAgentActsOnAreSpreadAndTheRestGoesOutAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{given: make(chan v1beta1.TunnelEndpointStatus, 16)}
		p := publish.NewSpread(r, "edge-1", slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		defer running.Wait()
		defer stop()

		after := func(what string, least, most time.Duration, s v1beta1.TunnelEndpointStatus, missing bool) {
			t.Helper()
			rest := time.NewTimer(2 * time.Second) // over the pause after a write
			<-rest.C
			began := time.Now()
			p.Set(s, missing)
			got := <-r.given
			if took := time.Since(began); took < least || took > most || !cmp.Equal(got, s) {
				t.Errorf("%s went out after %v, want %v to %v: %+v", what, took, least, most, got)
			}
		}
		s := status("gw")
		after("the first status", 0, 0, s, false)
		s.Problems = []v1beta1.Problem{{Object: "Gateway/gw", Reason: "R"}}
		after("a problem", time.Millisecond, 5*time.Second, s, false)
		s.Peers = []v1beta1.PeerHealth{{NodeName: "b", State: "up"}}
		after("a peer that came up", time.Millisecond, 5*time.Second, s, false)
		s.Tunnels = []v1beta1.TunnelPort{{Driver: "wireguard", Port: 4500, PublicKey: "other"}}
		after("another key", 0, 0, s, false)
		s.Addresses = []string{"192.168.0.2"}
		after("another address", 0, 0, s, false)
		s.Datapath = v1beta1.DatapathAccelerated
		after("another datapath", 0, 0, s, false)
		after("what readers do not see", 0, 0, s, true)

		s.Problems = nil
		began := time.Now()
		p.Set(s, false) // waits, and then goes along with what must not
		s.Tunnels = []v1beta1.TunnelPort{{Driver: "wireguard", Port: 4501, PublicKey: "other"}}
		p.Set(s, false)
		if got := <-r.given; time.Since(began) > time.Second || !cmp.Equal(got, s) {
			t.Errorf("a key that changed beside a problem went out after %v: %+v", time.Since(began), got)
		}
	})
}

func TestThousandNodesSpreadTheirNewsEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes = 1000
		r := &recorder{given: make(chan v1beta1.TunnelEndpointStatus, 2*nodes)}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		var all []*publish.Publisher
		for i := range nodes {
			p := publish.NewSpread(r, fmt.Sprintf("edge-%d", i), slog.New(slog.DiscardHandler))
			all = append(all, p)
			running.Go(func() { p.Run(ctx) })
			p.Set(status("gw"), false)
		}
		for range nodes {
			<-r.given
		}
		rest := time.NewTimer(2 * time.Second)
		<-rest.C
		s := status("gw")
		s.Problems = []v1beta1.Problem{{Object: "Gateway/gw", Reason: "R"}}
		began := time.Now()
		for _, p := range all {
			p.Set(s, false)
		}
		perSecond := map[int]int{}
		for range nodes {
			<-r.given
			perSecond[int(time.Since(began)/time.Second)]++
		}
		for second := range 5 {
			if n := perSecond[second]; n < nodes/5*3/4 || n > nodes/5*5/4 {
				t.Errorf("%d of %d wrote in second %d: %v", n, nodes, second, perSecond)
			}
		}
	})
}
