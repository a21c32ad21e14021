package source

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const oneOfEach = `apiVersion: raven.openyurt.io/v1beta1
kind: Gateway
metadata: {name: a}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {raven.openyurt.io/gateway: a}}
spec: {podCIDRs: [10.1.0.0/24]}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: raven.openyurt.io/v1beta1
kind: TunnelEndpoint
metadata: {name: n1}
status: {underlayMTU: 1500}
`

// sameAgain says the same, with what a heartbeat of the node and a report of its agent's health change.
const sameAgain = `apiVersion: raven.openyurt.io/v1alpha1
kind: Gateway
metadata: {name: a, resourceVersion: "7", managedFields: []}
---
apiVersion: v1
kind: Node
metadata: {name: n1, resourceVersion: "8", annotations: {of: no interest}, labels: {raven.openyurt.io/gateway: a}}
spec: {podCIDRs: [10.1.0.0/24], providerID: x}
status:
  addresses: [{type: InternalIP, address: 192.168.0.1}, {type: Hostname, address: n1}]
  images: [{names: [busybox]}]
  conditions: [{type: DiskPressure, status: "False", lastHeartbeatTime: "2026-11-23T05:00:00Z"}]
---
apiVersion: raven.openyurt.io/v1beta1
kind: TunnelEndpoint
metadata: {name: n1}
status: {underlayMTU: 1500, datapath: Accelerated, peers: [{nodeName: m1, state: up}], problems: []}
`

func TestAHeartbeatIsNoChange(t *testing.T) {
	dir := t.TempDir()
	m := NewManifests(dir, Settings{}, nil, Elect, slog.New(slog.DiscardHandler))
	// Later than any change by far: every look finds the folder at rest.
	look := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if wait := m.look(time.Now().Add(time.Hour)); wait != 0 {
			t.Fatalf("the folder rests, but is looked at again in %v", wait)
		}
		if p := m.Input().Problems; len(p) > 0 {
			t.Fatalf("problems: %v", p)
		}
	}
	noticed := func() bool {
		select {
		case <-m.Changed():
			return true
		default:
			return false
		}
	}
	look(oneOfEach)
	if !noticed() {
		t.Error("no notice of the first objects")
	}
	look(sameAgain)
	if noticed() {
		t.Errorf("a notice came, with %+v", m.Input().State)
	}
	look(oneOfEach + "---\napiVersion: v1\nkind: Node\nmetadata: {name: n2}\n")
	if !noticed() {
		t.Error("no notice of the new node")
	}
}
