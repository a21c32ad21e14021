package regions_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ravencni/raven/test/cluster"
	"github.com/ravencni/raven/test/lab"
)

// server is the control plane of this package's tests. It calls a node unready whose heart stands still.
var server *cluster.Cluster

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // every test then says what it misses
	}
	ctrl.SetLogger(logr.Discard())
	o := cluster.Options{ControllerManager: []string{
		"--controllers=*,-taint-eviction-controller", "--node-monitor-period=1s", fmt.Sprintf("--node-monitor-grace-period=%s", grace),
	}}
	os.Exit(lab.Enclose("regions", func() int { return cluster.Main(m, &server, o, (*cluster.Cluster).Install) }))
}
