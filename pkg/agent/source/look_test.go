package source

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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

func TestAFolderThatNeverRestsStillBringsNewsAndLosesNothing(t *testing.T) {
	dir := t.TempDir()
	m := NewManifests(dir, Settings{}, nil, nil, slog.New(slog.DiscardHandler))
	now := time.Now()
	// The file's times lie ahead of every look, and each look finds another size.
	write := func(size int, gateways ...string) {
		t.Helper()
		content := "# " + strings.Repeat("x", size) + "\n"
		for _, name := range gateways {
			content += "---\napiVersion: raven.openyurt.io/v1beta1\nkind: Gateway\nmetadata: {name: " + name + "}\n"
		}
		path := filepath.Join(dir, "all.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(time.Hour), now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	held := func() string { return fmt.Sprint(names(m.last.gateways)) }

	write(0, "a", "b")
	m.look(now)
	if wait := m.look(now.Add(settle)); wait != 0 || held() != "[a b]" {
		t.Fatalf("a folder that two looks found the same was not taken: wait %v, %s", wait, held())
	}
	begin := now.Add(time.Second)
	for step := time.Duration(0); step < patience; step += settle {
		write(1+int(step/settle), "a", "c")
		if wait := m.look(begin.Add(step)); wait == 0 || held() != "[a b]" {
			t.Fatalf("after %v of changes: wait %v, %s", step, wait, held())
		}
	}
	write(100, "a", "c")
	if wait := m.look(begin.Add(patience)); wait == 0 || held() != "[a b c]" {
		t.Errorf("when patience ends the news counts and nothing is removed: wait %v, %s", wait, held())
	}
	m.look(begin.Add(patience + settle))
	if wait := m.look(begin.Add(patience + 2*settle)); wait != 0 || held() != "[a c]" {
		t.Errorf("once the folder rests it is taken as it is: wait %v, %s", wait, held())
	}
}
