// Command raven-agent is the node daemon: it joins this node to its region and its region to the others.
package main

import (
	"context"
	"os"

	"github.com/ravencni/raven/pkg/program"
)

func main() {
	os.Exit(program.Run("raven-agent", os.Stderr, func(ctx context.Context) error {
		return newCommand(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
	}))
}
