package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeKubectl is a program that knows one pod and prints what it is asked to run there.
const fakeKubectl = `#!/bin/sh
case "$1" in
get) echo pod/coredns-1; echo pod/raven-agent-ds-x7k2p ;;
exec) shift; echo "ran: $*" ;;
esac
`

func TestACommandForAnotherNodeRunsInItsAgentsPod(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(fakeKubectl), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, args := range [][]string{{"--node", "edge-1", "status", "-o", "json"}, {"status", "--node=edge-1", "-o", "json"}} {
		var out bytes.Buffer
		if err := newCommand(&out, &out).run(t.Context(), args); err != nil {
			t.Fatal(err)
		}
		if want := "ran: -n kube-system pod/raven-agent-ds-x7k2p -- ravenctl status -o json"; strings.TrimSpace(out.String()) != want {
			t.Errorf("%v: %q, want %q", args, out.String(), want)
		}
	}
}
