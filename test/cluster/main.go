package cluster

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"testing"
)

// Main runs a package's tests with one control plane for all of them and returns the exit status. Each of prepare is done
// to the control plane first, such as (*Cluster).Install:
//
//	var server *cluster.Cluster
//
//	func TestMain(m *testing.M) {
//		os.Exit(cluster.Main(m, &server, cluster.Options{}, (*cluster.Cluster).Install))
//	}
func Main(m *testing.M, shared **Cluster, o Options, prepare ...func(*Cluster, context.Context) error) (status int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c, err := Start(ctx, o)
	if err != nil {
		fmt.Fprintf(os.Stderr, "start a control plane: %v\n", err)
		return 1
	}
	defer func() {
		if err := c.Stop(); err != nil {
			fmt.Fprintf(os.Stderr, "stop the control plane: %v\n", err)
			status = 1
		}
	}()
	for _, p := range prepare {
		if err := p(c, ctx); err != nil {
			fmt.Fprintf(os.Stderr, "prepare the control plane: %v\n", err)
			return 1
		}
	}
	stop() // from here on an interrupt ends the process, and the children with it
	*shared = c
	return m.Run()
}
