package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ravencni/raven/pkg/agent/publish"
	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/cluster"
)

// follow starts the agent's real source with the rights of the agent on a node.
func follow(t *testing.T, node string) (*source.Kube, *source.Clients) {
	t.Helper()
	clients, err := source.NewClients(kubeconfig(t, agent(t, node)), "v0.0.0-test")
	must(t, err)
	k := source.NewKube(clients, source.Settings{}, nil)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return k, clients
}

// await waits until the source's input is as wanted.
func await(t *testing.T, k *source.Kube, what string, ok func(source.Input) bool) source.Input {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	for {
		if in := k.Input(); ok(in) {
			return in
		}
		select {
		case <-k.Changed():
		case <-ctx.Done():
			in := k.Input()
			t.Fatalf("never saw %s: gateways %v, waiting for %q, problems %v", what, names(in), in.Waiting, in.Problems)
		}
	}
}

func names(in source.Input) (names []string) {
	for _, g := range in.State.Gateways {
		names = append(names, g.Name)
	}
	return names
}

// settled: all is listed, nothing is wrong, and the Gateways are these.
func settled(want ...string) func(source.Input) bool {
	return func(in source.Input) bool { return in.Synced && len(in.Problems) == 0 && slices.Equal(names(in), want) }
}

func hasProblem(reason string) func(source.Input) bool {
	return func(in source.Input) bool {
		return slices.ContainsFunc(in.Problems, func(p topology.Problem) bool { return p.Reason == reason })
	}
}

func createGateway(t *testing.T, name string) {
	t.Helper()
	create(t, gateways, object(t, `{apiVersion: raven.openyurt.io/v1beta1, kind: Gateway, metadata: {name: %s},
		spec: {endpoints: [{nodeName: %s-1}]}}`, name, name))
}

func deleteNow(t *testing.T, name string) {
	t.Helper()
	must(t, client(t, server.Admin()).Resource(gateways).Delete(t.Context(), name, metav1.DeleteOptions{}))
}

func TestAnAgentFollowsTheClusterWithTheRightsThatTheManifestsGive(t *testing.T) {
	createNode(t, "gw-a-1")
	createGateway(t, "gw-a")
	k, _ := follow(t, "gw-a-1")
	in := await(t, k, "the first gateway", settled("gw-a"))
	if len(in.State.Nodes) != 1 || in.State.Nodes[0].Name != "gw-a-1" || !in.State.Config.EnableTunnel {
		t.Errorf("nodes %v, config %+v", in.State.Nodes, in.State.Config)
	}

	createGateway(t, "gw-b")
	await(t, k, "a second gateway", settled("gw-a", "gw-b"))
	kubectl(t, "", "label", "node", "gw-a-1", v1beta1.LabelGateway+"=gw-a")
	await(t, k, "a node's label", func(in source.Input) bool {
		return in.State.Nodes[0].Labels[v1beta1.LabelGateway] == "gw-a"
	})
	config := client(t, server.Admin()).Resource(configMaps).Namespace(metav1.NamespaceSystem)
	_, err := config.Create(t.Context(), object(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: raven-cfg},
		data: {enable-l3-tunnel: "false"}}`), metav1.CreateOptions{})
	must(t, err)
	await(t, k, "L3 switched off", func(in source.Input) bool { return !in.State.Config.EnableTunnel })
	must(t, config.Delete(t.Context(), "raven-cfg", metav1.DeleteOptions{}))
	deleteNow(t, "gw-b")
	in = await(t, k, "the deletion of the second gateway", settled("gw-a"))
	if in.State.Config.EnableTunnel {
		t.Error("the ConfigMap is gone, and L3 went on again")
	}
	deleteNow(t, "gw-a")
	if in := await(t, k, "the deletion of the last gateway", settled()); !in.Emptied {
		t.Error("a user deleted the last gateway, and the input does not say so")
	}
}

func TestAnAgentNamesEachSettingThatItDoesNotFollowAndTheRemedy(t *testing.T) {
	createNode(t, "gw-a-1")
	k, _ := follow(t, "gw-a-1")
	await(t, k, "nothing wrong", settled())
	config := client(t, server.Admin()).Resource(configMaps).Namespace(metav1.NamespaceSystem)
	_, err := config.Create(t.Context(), object(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: raven-agent-config},
		data: {nat-traversal: "true", vpn-driver: openvpn, tunnel-bind-addr: "4500"}}`), metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, config.Delete(context.Background(), "raven-agent-config", metav1.DeleteOptions{})) })
	in := await(t, k, "three settings that are wrong", func(in source.Input) bool { return len(in.Problems) == 3 })
	for _, part := range []string{`nat-traversal is not built; gateways behind NAT reach one another through an exposed gateway; set it to "false"`,
		"vpn-driver", "tunnel-bind-addr"} {
		if !slices.ContainsFunc(in.Problems, func(p topology.Problem) bool {
			return p.Object == "ConfigMap/raven-agent-config" && strings.Contains(p.Message, part)
		}) {
			t.Errorf("nothing says %q: %+v", part, in.Problems)
		}
	}
	if in.State.Config.Driver != "ipsec" || in.State.Config.TunnelPort != 4500 {
		t.Errorf("what cannot be followed changed the configuration: %+v", in.State.Config)
	}
}

func TestAnAgentKeepsItsStateWhileTheAPIServerIsAwayAndGoesOnAfterwards(t *testing.T) {
	createNode(t, "gw-a-1")
	createGateway(t, "gw-a")
	k, clients := follow(t, "gw-a-1")
	await(t, k, "the gateway", settled("gw-a"))
	publisher := publish.API{Client: clients.Raven(), Node: "gw-a-1"}

	must(t, server.StopAPIServer())
	in := await(t, k, "that the API server is away", hasProblem(source.ReasonUnreachable))
	if !in.Synced || !slices.Equal(names(in), []string{"gw-a"}) || len(in.State.Nodes) != 1 {
		t.Errorf("while the API server is away: synced %t, gateways %v, %d nodes", in.Synced, names(in), len(in.State.Nodes))
	}
	if _, err := publisher.Put(t.Context(), v1beta1.TunnelEndpointStatus{}); err == nil {
		t.Error("the agent published to nobody")
	}
	must(t, server.StartAPIServer(t.Context()))
	createGateway(t, "gw-b")
	await(t, k, "a gateway that was made after the restart", settled("gw-a", "gw-b"))
}

func TestDeletingTheCRDTearsNothingDown(t *testing.T) {
	createNode(t, "gw-a-1")
	for _, name := range []string{"gw-a", "gw-b", "gw-c"} {
		createGateway(t, name)
	}
	te := create(t, endpoints, endpoint(t, "gw-a-1"))
	k, _ := follow(t, "gw-a-1")
	await(t, k, "the gateways", settled("gw-a", "gw-b", "gw-c"))
	t.Cleanup(func() { must(t, server.Install(context.WithoutCancel(t.Context()))) })

	// From here on every input that the source gives must still have all of them.
	whole := func(in source.Input) bool {
		if !slices.Equal(names(in), []string{"gw-a", "gw-b", "gw-c"}) || in.Emptied || len(in.State.Endpoints) != 1 {
			t.Fatalf("gateways %v, %d endpoints, emptied %t", names(in), len(in.State.Endpoints), in.Emptied)
		}
		return true
	}
	kubectl(t, "", "delete", "crd", "gateways.raven.openyurt.io", "tunnelendpoints.raven.openyurt.io")
	await(t, k, "a word about the CRD", func(in source.Input) bool { return whole(in) && hasProblem(source.ReasonNothingLeft)(in) })
	await(t, k, "that the kind is gone", func(in source.Input) bool { return whole(in) && hasProblem(source.ReasonUnreachable)(in) })

	// The CRDs come back without objects, then the first of the objects does.
	must(t, server.Install(t.Context()))
	await(t, k, "that the kind is back", func(in source.Input) bool { return whole(in) && !hasProblem(source.ReasonUnreachable)(in) })
	createGateway(t, "gw-a")
	te.SetResourceVersion("")
	create(t, endpoints, te)
	await(t, k, "the first objects", func(in source.Input) bool { return whole(in) && len(in.Problems) == 0 })
}

func TestAnAgentPublishesItsTunnelEndpointAndOnlyChanges(t *testing.T) {
	createNode(t, "gw-a-1")
	k, clients := follow(t, "gw-a-1")
	remove(t, endpoints, "gw-a-1")
	publisher := publish.API{Client: clients.Raven(), Node: "gw-a-1"}
	status := v1beta1.TunnelEndpointStatus{
		Gateway: "gw-a", Datapath: v1beta1.DatapathBaseline, DatapathReason: "no BTF", UnderlayMTU: 1500,
		Addresses: []string{"192.168.0.1"}, Tunnels: []v1beta1.TunnelPort{{Driver: "wireguard", Port: 4500, PublicKey: "a2V5"}},
		Peers: []v1beta1.PeerHealth{{NodeName: "gw-b-1", State: "connecting", Message: "no handshake yet"}},
	}
	put := func(want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		if written, err := publisher.Put(ctx, status); err != nil || written != want {
			t.Errorf("published: %t, %v; want %t", written, err, want)
		}
	}
	put(true)
	put(false)
	status.Peers[0] = v1beta1.PeerHealth{NodeName: "gw-b-1", State: "up"}
	put(true)
	in := await(t, k, "the published key", func(in source.Input) bool {
		return in.Synced && len(in.State.Endpoints) == 1 && len(in.State.Endpoints[0].Status.Tunnels) == 1
	})
	if got := in.State.Endpoints[0].Status.Tunnels[0].PublicKey; got != "a2V5" {
		t.Errorf("another agent reads the key %q", got)
	}
	got := table(t, "te", "gw-a-1", "-o", "wide")
	for header, want := range map[string]string{
		"NAME": "gw-a-1", "GATEWAY": "gw-a", "DATAPATH": "Baseline", "WHY": "no BTF", "DRIVER": "wireguard", "MTU": "1500",
	} {
		if got[header] != want {
			t.Errorf("kubectl get te shows %s %q, want %q", header, got[header], want)
		}
	}
	// The same agent cannot publish for another node.
	other := publish.API{Client: clients.Raven(), Node: "gw-b-1"}
	_, err := other.Put(t.Context(), status)
	refused(t, "publish for another node", err, "gw-b-1")
	// Somebody else's label is no reason to write, and survives the next write.
	_, err = client(t, server.Admin()).Resource(endpoints).Patch(t.Context(), "gw-a-1", types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"kept":"yes"}}}`), metav1.PatchOptions{})
	must(t, err)
	put(false)
	status.UnderlayMTU = 1400
	put(true)
	if out := kubectl(t, "", "get", "te", "gw-a-1", "-o", "jsonpath={.metadata.labels.kept} {.status.underlayMTU}"); out != "yes 1400" {
		t.Errorf("the label and MTU read %q", out)
	}
}

// What a token of the agents says is what the admission policy stands on.
func TestATokenOfAnAgentsPodNamesItsNode(t *testing.T) {
	createNode(t, "edge-1")
	path := kubeconfig(t, agent(t, "edge-1"))
	out, err := server.KubectlAs(t.Context(), path, "", "auth", "whoami", "-o",
		"jsonpath={.status.userInfo.username} {.status.userInfo.extra.authentication\\.kubernetes\\.io/node-name}")
	must(t, err)
	if want := fmt.Sprintf("system:serviceaccount:kube-system:%s [%q]", cluster.AgentAccount, "edge-1"); out != want {
		t.Errorf("the API server knows the agent as %s, want %s", out, want)
	}
}
