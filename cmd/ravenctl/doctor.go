package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/ctl/doctor"
)

// errFindings ends doctor where something does not work; what, was printed.
var errFindings = errors.New("something does not work; the findings say what to do")

func (c *command) doctorCommand() *cobra.Command {
	var all bool
	o := doctor.Options{}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong on a node, and say what to do",
		Long: "doctor compares the node's kernel with the agent's plan, or where no agent answers with one made of the snapshot on disk,\n" +
			"and knocks at the gateway or the tunnels' other ends. It changes nothing and takes less than five seconds.\n" +
			"It ends with status 1 where something does not work.",
		Example: "  ravenctl doctor\n  ravenctl doctor --node edge-1\n  ravenctl doctor --all -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.StateDir = c.stateDir
			found := doctor.Run(cmd.Context(), doctor.Look(cmd.Context(), o))
			if err := c.print(found, func(w io.Writer) error { return doctor.Write(w, found, all) }); err != nil {
				return err
			}
			if doctor.Worst(found) == doctor.Fail {
				return errFindings
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "also list the checks that found nothing")
	f.StringVar(&o.Node, "node-name", "", "name of this node where no agent tells (default: the environment's NODE_NAME, then the host's name)")
	f.StringVar(&o.CNIConfig, "cni-conf-dir", "/etc/cni/net.d", "the container runtime's folder of network configurations")
	f.StringVar(&o.CNIBinaries, "cni-bin-dir", "/opt/cni/bin", "the container runtime's folder of network plugins")
	return cmd
}
