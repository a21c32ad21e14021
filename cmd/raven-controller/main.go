// Command raven-controller is the control plane: it elects the gateways of all regions and explains the outcome.
package main

import (
	"context"
	"os"

	"github.com/ravencni/raven/pkg/program"
)

func main() {
	os.Exit(program.Run("raven-controller", os.Stderr, func(ctx context.Context) error {
		return newCommand(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
	}))
}
