package snapshot_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/agent/snapshot"
	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

func input() source.Input {
	one := 1
	return source.Input{
		Synced: true,
		State: topology.State{
			Gateways: []*v1beta1.Gateway{{
				ObjectMeta: metav1.ObjectMeta{Name: "gw", Generation: 3, Labels: map[string]string{"a": "b"}},
				Spec: v1beta1.GatewaySpec{
					ExposeType: v1beta1.ExposePublicIP, TunnelConfig: &v1beta1.TunnelConfiguration{Replicas: &one},
					Endpoints: []v1beta1.Endpoint{{NodeName: "n1", PublicIP: "192.0.2.1", Config: map[string]string{"<k>": "v&"}}},
				},
			}},
			Nodes: []*corev1.Node{{
				ObjectMeta: metav1.ObjectMeta{Name: "n1"},
				Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.1.0.0/24", "fd00:1::/64"}},
				Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{
					Type: corev1.NodeReady, Status: corev1.ConditionTrue,
					LastTransitionTime: metav1.NewTime(time.Unix(1700000000, 0)),
				}}},
			}},
			Endpoints: []*v1beta1.TunnelEndpoint{{
				ObjectMeta: metav1.ObjectMeta{Name: "n1"},
				Status:     v1beta1.TunnelEndpointStatus{UnderlayMTU: 1500, Tunnels: []v1beta1.TunnelPort{{Driver: "wireguard", Port: 4500}}},
			}},
			Config: topology.Config{
				EnableTunnel: true, ForwardNodeIP: true, Driver: "wireguard", TunnelPort: 4500,
				ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
			},
		},
		Throws: []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")},
	}
}

func save(t *testing.T, s *snapshot.Store, in source.Input, wantWrite bool) {
	t.Helper()
	if written, err := s.Save(in, time.Now()); err != nil || written != wantWrite {
		t.Fatalf("saved: %t, %v; want %t", written, err, wantWrite)
	}
}

func TestARestartedAgentFindsTheInputOfTheLastRun(t *testing.T) {
	dir := t.TempDir()
	save(t, snapshot.Open(dir), input(), true)
	got, err := snapshot.Open(dir).Load()
	if err != nil {
		t.Fatal(err)
	}
	want := input()
	want.Synced = false
	equal := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if d := cmp.Diff(&want, got, equal, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if info, err := os.Stat(filepath.Join(dir, snapshot.FileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the snapshot's mode is %v, %v", info.Mode(), err)
	}
}

func TestTheFileIsWrittenOnlyWhenTheInputChanges(t *testing.T) {
	dir := t.TempDir()
	s := snapshot.Open(dir)
	save(t, s, input(), true)
	first := stat(t, dir)
	for range 10 {
		save(t, s, input(), false)
	}
	// Neither does a restart write, nor problems and the source's own state.
	s = snapshot.Open(dir)
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	same := input()
	same.Synced, same.Problems = false, []topology.Problem{{Object: "File/x"}}
	save(t, s, same, false)
	if !os.SameFile(first, stat(t, dir)) {
		t.Error("the file was replaced although nothing changed")
	}

	changed := input()
	changed.State.Config.EnableTunnel = false
	save(t, s, changed, true)
	if os.SameFile(first, stat(t, dir)) {
		t.Error("the file was not replaced although the input changed")
	}
}

func stat(t *testing.T, dir string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, snapshot.FileName))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestASnapshotThatCannotBeTrustedIsPutAside(t *testing.T) {
	for _, c := range []struct {
		name    string
		corrupt func(good string) string
		says    string
	}{
		{"empty", func(string) string { return "" }, "parse it"},
		{"cut off", func(good string) string { return good[:len(good)/2] }, "parse it"},
		{"not JSON", func(string) string { return "\x00\x00\x00" }, "parse it"},
		{"one bit of the content flipped", func(good string) string { return strings.Replace(good, "10.1.0.0", "10.1.0.1", 1) }, "checksum"},
		{"of a later version", func(good string) string { return strings.Replace(good, `"version":1`, `"version":2`, 1) }, "version 2"},
		{"without a state, with a right checksum", func(string) string {
			return `{"version":1,"sha256":"74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b","content":null}`
		}, "no state"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, snapshot.FileName)
			save(t, snapshot.Open(dir), input(), true)
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bad := c.corrupt(string(good))
			if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			s := snapshot.Open(dir)
			in, err := s.Load()
			if in != nil || err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v and error %v; want an error that says %q", in, err, c.says)
			}
			if kept, err := os.ReadFile(path + ".bad"); err != nil || string(kept) != bad {
				t.Errorf("the bad file was not kept: %q, %v", kept, err)
			}
			// The next start is a clean one, and the next input is saved.
			if in, err := s.Load(); in != nil || err != nil {
				t.Errorf("the second start found %v, %v", in, err)
			}
			save(t, s, input(), true)
		})
	}
}

func TestAChecksumDoesNotDependOnTheLayout(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, snapshot.FileName)
	save(t, snapshot.Open(dir), input(), true)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var pretty map[string]json.RawMessage
	if err := json.Unmarshal(raw, &pretty); err != nil {
		t.Fatal(err)
	}
	indented, err := json.MarshalIndent(pretty, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, indented, 0o600); err != nil {
		t.Fatal(err)
	}
	if in, err := snapshot.Open(dir).Load(); err != nil || in == nil {
		t.Errorf("an indented snapshot gave %v, %v", in, err)
	}
}

func TestAMissingSnapshotIsNoError(t *testing.T) {
	s := snapshot.Open(filepath.Join(t.TempDir(), "none"))
	if in, err := s.Load(); in != nil || err != nil {
		t.Errorf("got %v, %v", in, err)
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
}
