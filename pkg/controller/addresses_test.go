package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/calico"
	"github.com/ravencni/raven/pkg/election"
)

// endpoint makes a node's TunnelEndpoint with a status.
func (r *rig) endpoint(node string, status v1beta1.TunnelEndpointStatus) *v1beta1.TunnelEndpoint {
	r.Helper()
	te := &v1beta1.TunnelEndpoint{ObjectMeta: metav1.ObjectMeta{Name: node}}
	r.create(te)
	te.Status = status
	if err := r.api.Status().Update(r.Context(), te); err != nil {
		r.Fatalf("write TunnelEndpoint %s: %v", node, err)
	}
	return te
}

func TestTheKeyThatANodePublishesIsMirrored(t *testing.T) {
	r := newRig(t)
	r.start()
	r.node("key-a", "key", "192.168.10.1", "10.10.1.0/24")
	r.gateway("key", `{endpoints: [{nodeName: key-a, underNAT: true}]}`)
	r.awaitActive("key", tunnel, "key-a")
	te := r.endpoint("key-a", v1beta1.TunnelEndpointStatus{Tunnels: []v1beta1.TunnelPort{{Driver: "wireguard", PublicKey: "first"}}})
	shows := func(want string) {
		t.Helper()
		r.await("key "+want, func() string {
			if got := r.getGateway("key").Status.ActiveEndpoint.Config["publicKey"]; got != want {
				return "the key is " + got
			}
			return ""
		})
	}
	shows("first")
	te.Status.Tunnels[0].PublicKey = "second"
	if err := r.api.Status().Update(t.Context(), te); err != nil {
		t.Fatal(err)
	}
	shows("second")
}

func TestSettingsOfTheAgentsShowInTheStatus(t *testing.T) {
	r := newRig(t)
	r.start()
	r.node("set-a", "set", "192.168.16.1", "10.16.1.0/24")
	r.gateway("set", `{endpoints: [{nodeName: set-a, underNAT: true}]}`)
	shows := func(reason string, port int) {
		t.Helper()
		if gw := r.awaitCondition("set", election.ConditionReady, reason); gw.Status.ActiveEndpoint.Port != port {
			t.Errorf("port %d, want %d", gw.Status.ActiveEndpoint.Port, port)
		}
	}
	shows(election.ReasonReady, 4500)
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "raven-agent-config"}}
	set := func(data map[string]string) {
		t.Helper()
		config.Data = data
		if err := r.api.Update(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	r.create(config)
	wireguard := map[string]string{"vpn-driver": "wireguard", "tunnel-bind-addr": ":4600"}
	set(wireguard)
	// With WireGuard asked for, a node without a key is not ready to be reached.
	shows(election.ReasonNoPublicKey, 4600)
	// Asked for no longer, and no agent says that it is in use.
	set(map[string]string{"tunnel-bind-addr": ":4600"})
	shows(election.ReasonReady, 4600)
	set(wireguard)
	shows(election.ReasonNoPublicKey, 4600)
	r.delete(config)
	shows(election.ReasonReady, 4600) // the last known port
	config.ResourceVersion = ""
	r.create(config)
	shows(election.ReasonNoPublicKey, 4600)
	r.endpoint("set-a", v1beta1.TunnelEndpointStatus{Tunnels: []v1beta1.TunnelPort{{Driver: "wireguard",
		PublicKey: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}}})
	r.awaitCondition("set", election.ConditionReady, election.ReasonReady)
}

func TestADeletedNodesKeyIsGoneWithinTenSeconds(t *testing.T) {
	r := newRig(t)
	r.start()
	n := r.node("gone-a", "gone", "192.168.11.1", "10.11.1.0/24")
	r.node("gone-b", "gone", "192.168.11.2", "10.11.2.0/24")
	r.gateway("gone", `{endpoints: [{nodeName: gone-a, underNAT: true}]}`)
	te := r.endpoint("gone-a", v1beta1.TunnelEndpointStatus{Tunnels: []v1beta1.TunnelPort{{Driver: "wireguard", PublicKey: "key"}}})
	stays := r.endpoint("gone-b", v1beta1.TunnelEndpointStatus{})
	r.await("the key", func() string {
		if gw := r.getGateway("gone"); gw.Status.ActiveEndpoint == nil || gw.Status.ActiveEndpoint.Config["publicKey"] != "key" {
			return fmt.Sprint(gw.Status.ActiveEndpoints)
		}
		return ""
	})
	r.delete(n)
	r.within(10*time.Second, "the end of the TunnelEndpoint and of the key", func() string {
		if err := r.api.Get(t.Context(), client.ObjectKeyFromObject(te), te); !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the TunnelEndpoint is there (%v)", err)
		}
		if gw := r.getGateway("gone"); len(gw.Status.ActiveEndpoints) > 0 {
			return fmt.Sprint(gw.Status.ActiveEndpoints)
		}
		return ""
	})
	if err := r.api.Get(t.Context(), client.ObjectKeyFromObject(stays), stays); err != nil {
		t.Errorf("the other node's TunnelEndpoint: %v", err)
	}
	r.await("a Warning that the role is lost", func() string {
		events := r.events("gone")
		if len(events) != 2 || !strings.HasPrefix(events[1], "Warning ActiveEndpointLost tunnel endpoint lost: gone-a does not exist") {
			return fmt.Sprint(events)
		}
		return ""
	})
}

func TestTheAddressOfANATedGatewayIsWhereAnExposedOneSeesIt(t *testing.T) {
	r := newRig(t)
	r.start()
	r.node("nat-edge", "nat-edge", "192.168.12.1", "10.12.1.0/24")
	r.node("nat-hub", "nat-hub", "192.168.12.2", "10.12.2.0/24")
	r.node("nat-liar", "nat-edge", "192.168.12.3", "10.12.3.0/24")
	r.gateway("nat-edge", `{endpoints: [{nodeName: nat-edge, underNAT: true}]}`)
	r.gateway("nat-hub", `{exposeType: PublicIP, endpoints: [{nodeName: nat-hub, publicIP: 203.0.113.12}]}`)
	r.awaitActive("nat-hub", tunnel, "nat-hub")
	r.endpoint("nat-liar", v1beta1.TunnelEndpointStatus{ObservedAddresses: []v1beta1.ObservedAddress{{NodeName: "nat-edge", Address: "198.51.100.66:1"}}})
	te := r.endpoint("nat-hub", v1beta1.TunnelEndpointStatus{ObservedAddresses: []v1beta1.ObservedAddress{{NodeName: "nat-edge", Address: "198.51.100.7:41234"}}})
	shows := func(want string) {
		t.Helper()
		r.await("address "+want, func() string {
			gw := r.getGateway("nat-edge")
			if gw.Status.ActiveEndpoint == nil || gw.Status.ActiveEndpoint.PublicIP != want {
				return fmt.Sprint(gw.Status.ActiveEndpoint)
			}
			return ""
		})
	}
	shows("198.51.100.7")
	te.Status.ObservedAddresses[0].Address = "[2001:db8::7]:41234"
	if err := r.api.Status().Update(t.Context(), te); err != nil {
		t.Fatal(err)
	}
	shows("2001:db8::7")
}

func TestAnExposedGatewayWithoutAnAddressSaysSo(t *testing.T) {
	r := newRig(t)
	r.start()
	r.node("bare-a", "bare", "192.168.13.1", "10.13.1.0/24")
	r.gateway("bare", `{exposeType: PublicIP, endpoints: [{nodeName: bare-a}]}`)
	gw := r.awaitCondition("bare", election.ConditionReady, election.ReasonNoPublicIP)
	if c := meta.FindStatusCondition(gw.Status.Conditions, election.ConditionReady); !strings.Contains(c.Message, "set its publicIP in spec.endpoints") {
		t.Errorf("the condition says %q", c.Message)
	}
}

const blockAffinityCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: blockaffinities.crd.projectcalico.org}
spec:
  group: crd.projectcalico.org
  names: {kind: BlockAffinity, listKind: BlockAffinityList, plural: blockaffinities, singular: blockaffinity}
  scope: Cluster
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties:
      {cidr: {type: string}, deleted: {type: string}, node: {type: string}, state: {type: string}}}}}}}
`

func TestCalicosConfirmedBlocksAreANodesSubnets(t *testing.T) {
	r := newRig(t)
	for _, args := range [][]string{{"apply", "-f", "-"}, {"wait", "--for=condition=Established", "--timeout=20s", "-f", "-"}} {
		if _, err := server.Kubectl(t.Context(), blockAffinityCRD, args...); err != nil {
			t.Fatal(err)
		}
	}
	r.Cleanup(func() {
		if _, err := server.Kubectl(context.Background(), blockAffinityCRD, "delete", "--wait=false", "-f", "-"); err != nil {
			r.Log(err)
		}
	})
	block := func(name, node, cidr, state, deleted string) *calico.BlockAffinity {
		b := &calico.BlockAffinity{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: calico.BlockAffinitySpec{Node: node, CIDR: cidr, State: state, Deleted: deleted}}
		r.create(b)
		return b
	}
	block("b1", "ipam-a", "10.14.0.64/26", "confirmed", "false")
	block("b2", "ipam-a", "10.14.0.0/26", "confirmed", "")
	block("b3", "ipam-a", "10.14.0.128/26", "pending", "false")
	block("b4", "ipam-a", "10.14.0.192/26", "confirmed", "true")
	r.start()
	r.node("ipam-a", "ipam", "192.168.14.1", "10.200.1.0/24")
	r.node("ipam-b", "ipam", "192.168.14.2", "10.200.2.0/24")
	r.gateway("ipam", `{endpoints: [{nodeName: ipam-a, underNAT: true}]}`)
	shows := func(want ...string) {
		t.Helper()
		r.await(fmt.Sprint("subnets ", want), func() string {
			gw := r.getGateway("ipam")
			if len(gw.Status.Nodes) != 2 || !slices.Equal(gw.Status.Nodes[0].Subnets, want) || !slices.Equal(gw.Status.Nodes[1].Subnets, []string{"10.200.2.0/24"}) {
				return fmt.Sprint(gw.Status.Nodes)
			}
			return ""
		})
	}
	shows("10.14.0.0/26", "10.14.0.64/26")
	r.delete(block("b5", "ipam-a", "10.14.1.0/26", "confirmed", "false"))
	b := block("b6", "ipam-a", "10.14.2.0/26", "confirmed", "false")
	shows("10.14.0.0/26", "10.14.0.64/26", "10.14.2.0/26")
	r.delete(b)
	shows("10.14.0.0/26", "10.14.0.64/26")
}

func TestALoadBalancersAddressBecomesPublicAndOutlivesAFailover(t *testing.T) {
	r := newRig(t)
	r.start()
	a := r.node("lb-a", "lb", "192.168.15.1", "10.15.1.0/24")
	r.node("lb-b", "lb", "192.168.15.2", "10.15.2.0/24")
	gw := r.gateway("lb", `{exposeType: LoadBalancer, endpoints: [{nodeName: lb-a, port: 4501}, {nodeName: lb-b, port: 4501}]}`)
	r.awaitCondition("lb", election.ConditionReady, election.ReasonNoLoadBalancerAddress)
	service := &corev1.Service{}
	key := client.ObjectKey{Namespace: "kube-system", Name: "x-raven-tunnel-svc-lb"}
	led := func(node, address string) func() string {
		return func() string {
			var slice discoveryv1.EndpointSlice
			if err := r.api.Get(t.Context(), key, service); err != nil {
				return err.Error()
			}
			if err := r.api.Get(t.Context(), client.ObjectKey{Namespace: key.Namespace, Name: key.Name + "-0"}, &slice); err != nil {
				return err.Error()
			}
			if len(slice.Endpoints) != 1 || *slice.Endpoints[0].NodeName != node || slice.Endpoints[0].Addresses[0] != address || *slice.Ports[0].Port != 4501 {
				return fmt.Sprint(slice.Endpoints, slice.Ports)
			}
			if got := service.Labels["raven.openyurt.io/endpoints-name"]; got != node {
				return "the Service's label names " + got
			}
			return ""
		}
	}
	r.await("a Service to lb-a", led("lb-a", "192.168.15.1"))
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer || service.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal ||
		service.Annotations["svc.openyurt.io/discard"] != "true" || service.Labels[v1beta1.LabelGateway] != "lb" ||
		service.Labels["raven.openyurt.io/gateway-type"] != "tunnel" || len(service.Spec.Selector) > 0 {
		t.Errorf("the Service is %+v %+v", service.ObjectMeta, service.Spec)
	}
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.15"}}
	if err := r.api.Status().Update(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	r.awaitCondition("lb", election.ConditionReady, election.ReasonReady)
	uid, clusterIP := service.UID, service.Spec.ClusterIP
	r.delete(a)
	r.await("a Service to lb-b", led("lb-b", "192.168.15.2"))
	after := r.awaitActive("lb", tunnel, "lb-b")
	if service.UID != uid || service.Spec.ClusterIP != clusterIP || after.Status.ActiveEndpoint.PublicIP != "203.0.113.15" {
		t.Errorf("after the failover the address is %q, the Service %s %s", after.Status.ActiveEndpoint.PublicIP, service.UID, service.Spec.ClusterIP)
	}
	r.delete(gw)
	r.await("the end of the Service", func() string {
		if err := r.api.Get(t.Context(), key, service); !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the Service is there (%v)", err)
		}
		return ""
	})
}
