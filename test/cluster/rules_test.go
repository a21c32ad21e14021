package cluster_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/apis/raven/speccases"
)

// Each case is a create that the server decides on and does not store.
func TestTheServerAcceptsOrRefusesByEachRuleOfAGatewaysSpec(t *testing.T) {
	admin := client(t, server.Admin())
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		resource := gateways
		resource.Version = version
		for _, c := range speccases.All() {
			t.Run(version+" "+c.Name, func(t *testing.T) {
				gateway := object(t, "{apiVersion: raven.openyurt.io/%s, kind: Gateway, metadata: {name: gw}, spec: %s}", version, c.Spec)
				_, err := admin.Resource(resource).Create(t.Context(), gateway, metav1.CreateOptions{
					DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
				})
				checkRefusal(t, err, c.Refusal)
			})
		}
	}
}

// checkRefusal compares the server's answer with the parts that its refusal must have; none: it accepts.
func checkRefusal(t *testing.T, err error, parts []string) {
	t.Helper()
	if len(parts) == 0 {
		must(t, err)
		return
	}
	if !apierrors.IsInvalid(err) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the refusal does not say %q: %v", part, err)
		}
	}
}

func TestTheServerRefusesAFieldThatNobodyKnowsByName(t *testing.T) {
	_, err := server.Kubectl(t.Context(), `{"apiVersion": "raven.openyurt.io/v1beta1", "kind": "Gateway", "metadata": {"name": "gw"},
		"spec": {"exposedType": "PublicIP"}}`, "apply", "--dry-run=server", "-f", "-")
	if err == nil || !strings.Contains(err.Error(), `unknown field "spec.exposedType"`) {
		t.Errorf("got %v, want the field's name", err)
	}
}

func TestTheServerHoldsATunnelEndpointToItsSchema(t *testing.T) {
	admin := client(t, server.Admin()).Resource(endpoints)
	made := create(t, endpoints, object(t, `{apiVersion: raven.openyurt.io/v1beta1, kind: TunnelEndpoint, metadata: {name: n1}}`))
	for name, c := range map[string]struct {
		status  string
		refusal []string
	}{
		"a whole status": {`{gateway: gw, tunnels: [{driver: wireguard, port: 4500, publicKey: a2V5}], addresses: [192.168.0.1],
			observedAddresses: [{nodeName: n2, address: "203.0.113.7:4500"}], underlayMTU: 1500, datapath: Baseline,
			datapathReason: no BTF, peers: [{nodeName: n2, state: up}],
			problems: [{object: Node/n3, reason: NoPodCIDR, message: it has none}]}`, nil},
		"a datapath that there is not": {`{datapath: Fast}`, []string{"status.datapath", `"Accelerated", "Baseline", "Off"`}},
		"a state that there is not":    {`{peers: [{nodeName: n2, state: fine}]}`, []string{"status.peers[0].state", "connecting"}},
		"a port out of range":          {`{tunnels: [{driver: wireguard, port: 65536}]}`, []string{"status.tunnels[0].port", "65535"}},
		"a driver twice": {`{tunnels: [{driver: wireguard}, {driver: wireguard}]}`,
			[]string{"status.tunnels[1]: Duplicate value"}},
		"a tunnel without a driver": {`{tunnels: [{driver: ""}]}`, []string{"status.tunnels[0].driver"}},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := made.DeepCopy()
			endpoint.Object["status"] = object(t, "%s", c.status).Object
			_, err := admin.UpdateStatus(t.Context(), endpoint, metav1.UpdateOptions{
				DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
			})
			checkRefusal(t, err, c.refusal)
		})
	}
}
