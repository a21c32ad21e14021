package v1beta1_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	structuralpruning "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/dump"
	"sigs.k8s.io/randfill"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// A field that the Go types have and the schema lacks would be dropped by the API server without a word.
func TestTheSchemasKnowEveryFieldOfTheGoTypes(t *testing.T) {
	fill := randfill.NewWithSeed(1).NilChance(0).NumElements(1, 2).Funcs(
		func(m *metav1.ObjectMeta, _ randfill.Continue) { m.Name = "x" },
		func(ts *metav1.Time, _ randfill.Continue) { *ts = metav1.NewTime(time.Unix(1700000000, 0)) },
	)
	for crd, object := range map[string]any{
		"gateways":        &v1beta1.Gateway{},
		"tunnelendpoints": &v1beta1.TunnelEndpoint{},
	} {
		fill.Fill(object)
		encoded, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		var content map[string]any
		if err := json.Unmarshal(encoded, &content); err != nil {
			t.Fatal(err)
		}
		server := newAPIServer(t, crd, "v1beta1")
		lost := structuralpruning.PruneWithOptions(content, server.structural, true,
			structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
		if len(lost) > 0 {
			t.Errorf("%s: an API server drops %s of\n%s", crd, strings.Join(lost, ", "), dump.Pretty(object))
		}
	}
}

// columns prints an object as kubectl get does: header to cell.
func columns(t *testing.T, server *apiServer, object map[string]any) map[string]any {
	t.Helper()
	convertor, err := tableconvertor.New(server.version.AdditionalPrinterColumns)
	if err != nil {
		t.Fatalf("the printer columns of %s: %v", server.crd.Name, err)
	}
	table, err := convertor.ConvertToTable(t.Context(), &unstructured.Unstructured{Object: object}, nil)
	if err != nil {
		t.Fatalf("print %v: %v", object["metadata"], err)
	}
	cells := map[string]any{}
	for i, header := range table.ColumnDefinitions {
		cells[header.Name] = table.Rows[0].Cells[i]
	}
	return cells
}

func TestKubectlGetShowsTheStateOfAGateway(t *testing.T) {
	server := newAPIServer(t, "gateways", "v1beta1")
	object := gatewayWith(t, "v1beta1", "status", `{activeEndpoint: {nodeName: cloud-1, publicIP: 203.0.113.7}, nodeCount: 2,
		conditions: [{type: TunnelElected, status: "True"}, {type: Ready, status: "False", reason: NoPublicIP}]}`)
	object["spec"] = map[string]any{"exposeType": "PublicIP"}
	got := columns(t, server, object)
	for header, want := range map[string]any{"Name": "gw", "Exposed": "PublicIP", "Tunnel node": "cloud-1",
		"Public IP": "203.0.113.7", "Nodes": int64(2), "Ready": "False", "Reason": "NoPublicIP"} {
		if got[header] != want {
			t.Errorf("column %s shows %v, want %v", header, got[header], want)
		}
	}
}

func TestKubectlGetShowsTheStateOfATunnelEndpoint(t *testing.T) {
	server := newAPIServer(t, "tunnelendpoints", "v1beta1")
	object := decodeAll(t, []byte(`{apiVersion: raven.openyurt.io/v1beta1, kind: TunnelEndpoint, metadata: {name: cloud-1},
		status: {gateway: gw-cloud, datapath: Baseline, datapathReason: no BTF, underlayMTU: 1500,
		tunnels: [{driver: wireguard, port: 4500, publicKey: x}]}}`))[0]
	if errs := server.admit(t, object); len(errs) > 0 {
		t.Fatalf("refused:\n%s", errorText(errs))
	}
	got := columns(t, server, object)
	for header, want := range map[string]any{"Name": "cloud-1", "Gateway": "gw-cloud", "Datapath": "Baseline",
		"Why": "no BTF", "Driver": "wireguard", "MTU": int64(1500)} {
		if got[header] != want {
			t.Errorf("column %s shows %v, want %v", header, got[header], want)
		}
	}
}
