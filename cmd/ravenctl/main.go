// Command ravenctl looks into Raven: what it does on a node and in the cluster, and what is wrong.
package main

import (
	"context"
	"os"

	"github.com/ravencni/raven/pkg/program"
)

func main() {
	os.Exit(program.Run("ravenctl", os.Stderr, func(ctx context.Context) error {
		return newCommand(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
	}))
}
