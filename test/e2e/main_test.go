// Package e2e_test goes through the tutorial on a real Kubernetes, and then through the life of an installation.
package e2e_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ravencni/raven/test/cluster/node"
)

// envImages names the folder of the images; `make e2e` makes it and gives it here.
const envImages = "RAVEN_E2E_IMAGES"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(envImages) == "" {
		os.Exit(m.Run()) // every test then says what it misses
	}
	ctrl.SetLogger(logr.Discard())
	os.Exit(node.Enclose("e2e", m.Run))
}

// say tells of progress on the terminal, in whichever test.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "e2e: "+format+"\n", args...) }
