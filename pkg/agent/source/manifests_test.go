package source_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/topology"
)

// folder is a manifests folder and the source that reads it.
type folder struct {
	t      *testing.T
	dir    string
	source *source.Manifests
}

// start runs a source on dir for the length of the test.
func start(t *testing.T, dir string, seed *source.Input) *folder {
	t.Helper()
	return startWith(t, dir, seed, source.Settings{Driver: "wireguard"}, source.Elect)
}

func startWith(t *testing.T, dir string, seed *source.Input, s source.Settings,
	complete func(topology.State) topology.State) *folder {
	t.Helper()
	f := &folder{t: t, dir: dir, source: source.NewManifests(dir, s, seed, complete, slog.New(slog.DiscardHandler))}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.source.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the source ended with %v", err)
		}
	})
	return f
}

// await waits until the input is as wanted, for less than the ten seconds after which a lost notice would not show.
func (f *folder) await(what string, ok func(source.Input) bool) source.Input {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 8*time.Second)
	defer cancel()
	for {
		in := f.source.Input()
		if ok(in) {
			return in
		}
		select {
		case <-f.source.Changed():
		case <-ctx.Done():
			f.t.Fatalf("never saw %s; gateways %v, nodes %v, endpoints %v, synced %t %q, problems:\n%v", what, gateways(in),
				nodes(in), endpoints(in), in.Synced, in.Waiting, in.Problems)
		}
	}
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) write(name, content string) { write(f.t, f.path(name), content) }

func (f *folder) remove(name string) {
	f.t.Helper()
	if err := os.RemoveAll(f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func gateway(name string) string {
	return fmt.Sprintf("apiVersion: raven.openyurt.io/v1beta1\nkind: Gateway\nmetadata:\n  name: %s\n---\n", name)
}

func node(name, gateway string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s, labels: {raven.openyurt.io/gateway: %s}}
spec: {podCIDRs: [10.1.0.0/24]}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
`, name, gateway)
}

func endpoint(name string) string {
	return fmt.Sprintf("apiVersion: raven.openyurt.io/v1beta1\nkind: TunnelEndpoint\nmetadata: {name: %s}\n"+
		"status: {underlayMTU: 1500}\n---\n", name)
}

func gateways(in source.Input) (names []string) {
	for _, o := range in.State.Gateways {
		names = append(names, o.Name)
	}
	return names
}

func nodes(in source.Input) (names []string) {
	for _, o := range in.State.Nodes {
		names = append(names, o.Name)
	}
	return names
}

func endpoints(in source.Input) (names []string) {
	for _, o := range in.State.Endpoints {
		names = append(names, o.Name)
	}
	return names
}

func hasGateways(names ...string) func(source.Input) bool {
	return func(in source.Input) bool { return in.Synced && slices.Equal(gateways(in), names) }
}

func hasProblem(object, reason string) func(source.Input) bool {
	return func(in source.Input) bool {
		return slices.ContainsFunc(in.Problems, func(p topology.Problem) bool {
			return p.Object == object && p.Reason == reason && p.Message != ""
		})
	}
}

func isFine(in source.Input) bool { return in.Synced && len(in.Problems) == 0 }

func TestAFolderThatWasThereBeforeIsReadAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "all.yaml"), gateway("a")+node("n1", "a")+endpoint("n1"))
	in := start(t, dir, nil).await("all objects", isFine)
	if got := fmt.Sprint(gateways(in), nodes(in), endpoints(in)); got != "[a] [n1] [n1]" {
		t.Errorf("read %s", got)
	}
	if got := in.State.Gateways[0].Status.Nodes; len(got) != 1 || got[0].NodeName != "n1" || got[0].PrivateIP != "192.168.0.1" {
		t.Errorf("the gateway's status names the nodes %+v; without a controller the source has to fill them in", got)
	}
}

func TestYAMLThatDoesNotParseCostsOnlyItself(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", gateway("a1")+gateway("a2"))
	f.write("b.yaml", gateway("b"))
	f.await("three gateways", hasGateways("a1", "a2", "b"))

	// The second document is broken: what it was before stays, since nobody knows what it is now.
	f.write("a.yaml", gateway("a1")+"kind: [Gateway\n---\n"+gateway("a3"))
	in := f.await("the problem", hasProblem("File/a.yaml", source.ReasonNotParsed))
	if got := gateways(in); !slices.Equal(got, []string{"a1", "a2", "a3", "b"}) {
		t.Errorf("with a broken document there are the gateways %v", got)
	}
	if m := in.Problems[0].Message; !strings.Contains(m, "document 2") {
		t.Errorf("the message does not say which document is broken: %s", m)
	}

	f.write("a.yaml", gateway("a1")+gateway("a3"))
	f.await("the repaired file", hasGateways("a1", "a3", "b"))
	f.await("no problem", isFine)
}

func TestAFieldOfTheWrongTypeCostsOnlyItsObject(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", gateway("a")+strings.Replace(gateway("b"), "---\n", "spec:\n  endpoints:\n  - {nodeName: n1, port: many}\n---\n", 1)+
		node("n1", "a"))
	in := f.await("the problem", hasProblem("File/a.yaml", source.ReasonNotParsed))
	if got := fmt.Sprint(gateways(in), nodes(in)); got != "[a] [n1]" {
		t.Errorf("read %s", got)
	}
	if m := in.Problems[0].Message; !strings.Contains(m, "Gateway/b") || !strings.Contains(m, "port") {
		t.Errorf("the message names neither object nor field: %s", m)
	}
}

func TestAnUnknownFieldIsNamedAndTheRestOfItsGatewayIsUsed(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", strings.Replace(gateway("a"), "---\n", "spec: {exposetype: PublicIP, exposeType: PublicIP}\n", 1))
	in := f.await("the problem", hasProblem("Gateway/a", source.ReasonUnknownField))
	if in.State.Gateways[0].Spec.ExposeType != "PublicIP" || !strings.Contains(in.Problems[0].Message, "exposetype") {
		t.Errorf("got %+v and %v", in.State.Gateways[0].Spec, in.Problems)
	}
}

func TestObjectsOfUnknownKindAreSkippedAndNamed(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: busy-box}\n---\n"+gateway("a")+
		"apiVersion: raven.openyurt.io/v9\nkind: Gateway\nmetadata: {name: future}\n---\n"+
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: raven-cfg, namespace: default}\ndata: {enable-l3-tunnel: \"false\"}\n")
	in := f.await("the gateway", hasGateways("a"))
	for _, object := range []string{"Deployment/busy-box", "Gateway/future", "ConfigMap/raven-cfg"} {
		if !hasProblem(object, source.ReasonUnknownKind)(in) {
			t.Errorf("%s is not named in %v", object, in.Problems)
		}
	}
	if !in.State.Config.EnableTunnel {
		t.Error("a ConfigMap of another namespace was read")
	}
}

func TestAnObjectThatStandsTwiceCountsOnceAndIsNamed(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", gateway("g")+gateway("g"))
	f.await("the repetition in one file", hasProblem("Gateway/g", source.ReasonDuplicate))
	f.write("a.yaml", strings.Replace(gateway("g"), "---", "spec: {exposeType: PublicIP}", 1))
	f.write("b.yaml", gateway("g"))
	in := f.await("the repetition in two files", func(in source.Input) bool {
		return hasProblem("Gateway/g", source.ReasonDuplicate)(in) && in.State.Gateways[0].Spec.ExposeType == "PublicIP"
	})
	if got := gateways(in); !slices.Equal(got, []string{"g"}) {
		t.Errorf("there are the gateways %v", got)
	}
}

func TestAnEmptiedFolderTearsNothingDown(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", gateway("a")+node("n1", "a"))
	f.write("e.yaml", endpoint("n1"))
	before := f.await("all objects", isFine)

	f.remove("a.yaml")
	f.remove("e.yaml")
	in := f.await("the problem", hasProblem("Folder/"+filepath.Base(f.dir), source.ReasonNothingLeft))
	if !slices.Equal(in.State.Gateways, before.State.Gateways) && fmt.Sprint(gateways(in), nodes(in), endpoints(in)) != "[a] [n1] [n1]" {
		t.Errorf("an empty folder left %v %v %v", gateways(in), nodes(in), endpoints(in))
	}

	f.write("b.yaml", gateway("b")+node("m1", "b")+endpoint("m1"))
	in = f.await("the new objects", hasGateways("b"))
	if got := fmt.Sprint(nodes(in), endpoints(in)); got != "[m1] [m1]" {
		t.Errorf("after the folder has a gateway again there are %s", got)
	}
}

func TestAFolderWithoutItsLastGatewayKeepsItsNodesToo(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", gateway("a"))
	f.write("n.yaml", node("n1", "a")+node("n2", "a"))
	f.await("all objects", isFine)
	f.remove("a.yaml")
	f.write("n.yaml", node("n1", "a"))
	in := f.await("the problem", hasProblem("Folder/"+filepath.Base(f.dir), source.ReasonNothingLeft))
	if got := fmt.Sprint(gateways(in), nodes(in)); got != "[a] [n1 n2]" {
		t.Errorf("an answer without any gateway left %s", got)
	}
}

func TestAnEmptyFileIsTakenForOneThatWasCutOff(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", gateway("a"))
	f.write("b.yaml", gateway("b"))
	f.await("both gateways", hasGateways("a", "b"))
	f.write("b.yaml", "\n")
	in := f.await("the problem", hasProblem("File/b.yaml", source.ReasonNotParsed))
	if got := gateways(in); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("there are the gateways %v", got)
	}
	f.remove("b.yaml")
	f.await("one gateway", hasGateways("a"))
}

func TestAVanishedFolderTearsNothingDownAndIsReadWhenItIsBack(t *testing.T) {
	f := start(t, filepath.Join(t.TempDir(), "manifests"), nil)
	in := f.await("a word about the missing folder", func(in source.Input) bool { return len(in.Problems) > 0 })
	if in.Synced || !strings.Contains(in.Waiting, "manifests") {
		t.Errorf("without a folder the source is synced %t, waiting for %q", in.Synced, in.Waiting)
	}
	makeFolder := func() {
		t.Helper()
		if err := os.Mkdir(f.dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	makeFolder()
	f.write("a.yaml", gateway("a"))
	f.await("the gateway", hasGateways("a"))

	f.remove("")
	in = f.await("the problem", hasProblem("Folder/manifests", source.ReasonNotReadable))
	if !in.Synced || !slices.Equal(gateways(in), []string{"a"}) {
		t.Errorf("a vanished folder left %v", gateways(in))
	}
	makeFolder()
	f.write("b.yaml", gateway("b"))
	f.await("the new folder's gateway", hasGateways("b"))
	f.await("no problem", isFine)
}

func TestADeletedFileTakesItsObjectsAlongWhileGatewaysAreLeft(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", gateway("a")+endpoint("n1"))
	f.write("b.yaml", gateway("b")+endpoint("n2"))
	f.await("both gateways", hasGateways("a", "b"))
	f.remove("b.yaml")
	in := f.await("one gateway", hasGateways("a"))
	if got := fmt.Sprint(endpoints(in)); got != "[n1]" {
		t.Errorf("there are the endpoints %s", got)
	}
}

func TestAnUnreadableFileKeepsItsLastGoodObjects(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", gateway("a"))
	f.write("b.yaml", gateway("b"))
	f.await("both gateways", hasGateways("a", "b"))
	f.remove("b.yaml")
	if err := os.Symlink("/nowhere", f.path("b.yaml")); err != nil {
		t.Fatal(err)
	}
	in := f.await("the problem", hasProblem("File/b.yaml", source.ReasonNotReadable))
	if got := gateways(in); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("there are the gateways %v", got)
	}
}

func TestFilesThatAreNoManifestsAreLeftAlone(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	for _, name := range []string{".hidden.yaml", "x.yaml~", "x.yaml.swp", "x.txt", "#x.yaml#"} {
		f.write(name, "not: [yaml")
	}
	if err := os.Mkdir(f.path("sub.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.write("sub.yaml/in.yaml", gateway("sub"))
	f.write("a.yaml", gateway("a"))
	in := f.await("the gateway", hasGateways("a"))
	if len(in.Problems) > 0 {
		t.Errorf("problems: %v", in.Problems)
	}
}
