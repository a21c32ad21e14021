// Command raven-lab builds Raven's lab on this machine, shows it and checks it.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/version"
	"github.com/ravencni/raven/test/lab"
)

func main() {
	lab.BecomeHolderIfAsked()
	os.Exit(run())
}

// exitStatus is an error that says nothing: the command has explained itself already.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func run() int {
	root := &cobra.Command{
		Use:           "raven-lab",
		Short:         "Regions of nodes and pods in network namespaces, with the real agents",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.String(),
	}
	root.AddCommand(demoCommand(), checkCommand(), upCommand(), holdCommand(), downCommand(), enterCommand(), execCommand())
	err := root.Execute()
	if status, ok := err.(exitStatus); ok {
		return int(status)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "raven-lab:", err)
		return 1
	}
	return 0
}
