// Command ravenctl looks into Raven: what it does on a node and in the cluster, and what is wrong. Under the name
// kubectl-raven it is a plugin of kubectl.
package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/ravencni/raven/pkg/program"
)

func main() {
	name := nameOf(os.Args[0])
	os.Exit(program.Run(name, os.Stderr, func(ctx context.Context) error {
		return newCommand(os.Stdout, os.Stderr).as(name).run(ctx, os.Args[1:])
	}))
}

// nameOf is how people call the program that was started by a path.
func nameOf(path string) string {
	if strings.HasPrefix(filepath.Base(path), "kubectl-raven") {
		return "kubectl raven"
	}
	return "ravenctl"
}
