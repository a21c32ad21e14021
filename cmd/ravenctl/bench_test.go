package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/ravencni/raven/pkg/ctl/pathbench"
)

// asRavenctl in the environment has this program be ravenctl.
const asRavenctl = "RAVEN_TEST_RAVENCTL"

func TestMain(m *testing.M) {
	if os.Getenv(asRavenctl) != "" {
		main()
	}
	os.Exit(m.Run())
}

// execKubectl is a program that stands in for kubectl: each node has a pod and this host's address, and exec runs ravenctl here.
const execKubectl = `#!/bin/sh
case "$1 $2" in
"get pods") echo pod/raven-agent-ds-x7k2p ;;
"get node") echo 127.0.0.1 fd00::1 ;;
exec*) while [ "$1" != -- ]; do shift; done; shift 2; RAVEN_TEST_RAVENCTL=1 exec "$RAVENCTL" "$@" ;;
esac
`

func TestBenchMeasuresBetweenTwoNodes(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(execKubectl), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("RAVENCTL", os.Args[0])
	var out bytes.Buffer
	if err := newCommand(&out, os.Stderr).run(t.Context(), []string{"bench", "edge-1", "cloud-1", "--for=400ms", "-o", "json"}); err != nil {
		t.Fatal(err)
	}
	var r pathbench.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.From != "edge-1" || r.To != "cloud-1" || r.RoundTrips < 1 || r.Bytes == 0 {
		t.Errorf("%v: %s", err, out.String())
	}
}
