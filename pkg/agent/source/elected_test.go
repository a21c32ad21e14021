package source_test

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func gatewayWith(name string, status v1beta1.GatewayStatus) *v1beta1.Gateway {
	return &v1beta1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: status}
}

var elected = v1beta1.GatewayStatus{
	ActiveEndpoints: []*v1beta1.Endpoint{{NodeName: "n1"}},
	ActiveEndpoint:  &v1beta1.Endpoint{NodeName: "n1"},
	Nodes:           []v1beta1.NodeInfo{{NodeName: "n1"}, {NodeName: "n2"}},
}

func TestAGatewayThatLostItsStatusKeepsItsActiveEndpoints(t *testing.T) {
	explained := v1beta1.GatewayStatus{Conditions: []metav1.Condition{{Type: "TunnelElected", Status: "False"}}}
	other := v1beta1.GatewayStatus{ActiveEndpoints: []*v1beta1.Endpoint{{NodeName: "n2"}}}
	for _, c := range []struct {
		name   string
		known  v1beta1.GatewayStatus // of the snapshot
		now    v1beta1.GatewayStatus
		active string
		told   bool
	}{
		{"a status that was lost", elected, v1beta1.GatewayStatus{}, "n1", true},
		{"a status with generation alone", elected, v1beta1.GatewayStatus{ObservedGeneration: 3}, "n1", true},
		{"the controller says that nobody is active", elected, explained, "", false},
		{"somebody else is active", elected, other, "n2", false},
		{"a Gateway that never had anybody active", explained, v1beta1.GatewayStatus{}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			e := source.NewElected([]*v1beta1.Gateway{gatewayWith("a", c.known), gatewayWith("b", elected)}, start)
			in := []*v1beta1.Gateway{gatewayWith("a", c.now), gatewayWith("b", elected)}
			given := slices.Clone(in)
			out, problems := e.Keep(in, start.Add(time.Second))
			got := ""
			if s := out[0].Status; len(s.ActiveEndpoints) > 0 {
				got = s.ActiveEndpoints[0].NodeName
			}
			if got != c.active || (len(problems) > 0) != c.told {
				t.Errorf("active %q, problems %v", got, problems)
			}
			if c.told && (len(out[0].Status.Nodes) != 2 || problems[0].Object != "Gateway/a" || problems[0].Reason != "StatusLost") {
				t.Errorf("kept %+v, told %v", out[0].Status, problems)
			}
			if out[1] != in[1] || !slices.Equal(in, given) || len(in[0].Status.ActiveEndpoints) != len(c.now.ActiveEndpoints) {
				t.Error("it changed an object or the list that it was given")
			}
			if again, _ := e.Keep(in, start.Add(2*time.Second)); again[0] != out[0] {
				t.Error("the same input gives another object")
			}
		})
	}
}

func TestAGatewayThatWasDeletedIsRememberedForAWhile(t *testing.T) {
	start := time.Now()
	back := []*v1beta1.Gateway{gatewayWith("a", v1beta1.GatewayStatus{})}
	e := source.NewElected([]*v1beta1.Gateway{gatewayWith("a", elected)}, start)
	e.Keep(nil, start.Add(time.Minute))
	if out, _ := e.Keep(back, start.Add(2*time.Minute)); len(out[0].Status.ActiveEndpoints) != 1 {
		t.Error("a Gateway that came back after two minutes has nobody active")
	}
	e.Keep(nil, start.Add(time.Hour))
	if out, _ := e.Keep(back, start.Add(2*time.Hour)); len(out[0].Status.ActiveEndpoints) != 0 {
		t.Error("a Gateway that came back after hours has its old active endpoint")
	}
}
