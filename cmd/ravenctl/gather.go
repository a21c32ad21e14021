package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/ctl/doctor"
	"github.com/ravencni/raven/pkg/ctl/drops"
	"github.com/ravencni/raven/pkg/ctl/gather"
	"github.com/ravencni/raven/pkg/ctl/graph"
)

func (c *command) gatherCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "gather",
		Short: "Pack this node's state into an archive for those who help you, without secrets",
		Long: "gather packs the agent's report, doctor's findings, all counters, and Raven's rules, routes, nft table and maps. It holds\n" +
			"the cluster's addresses and names, and no key.",
		Example: "  ravenctl gather -f raven.tar.gz\n  ravenctl gather --node edge-1 -f - > edge-1.tar.gz",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			report, askErr := local.Ask(ctx, local.SocketPath(c.stateDir))
			counts, dropErr := drops.Read(ctx)
			values := map[string]any{
				"report": report, "drops": counts,
				"doctor": doctor.Run(ctx, doctor.Look(ctx, doctor.Options{
					StateDir: c.stateDir, CNIConfig: "/etc/cni/net.d", CNIBinaries: "/opt/cni/bin",
				})),
				"errors": fmt.Sprint(errors.Join(askErr, dropErr)),
			}
			out := c.out
			if file != "-" {
				f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
				if err != nil {
					return fmt.Errorf("make the archive: %w", err)
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				out = f
			}
			return gather.Write(ctx, out, values, time.Now())
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "raven.tar.gz", "the archive; -: standard output")
	return cmd
}

func (c *command) graphCommand() *cobra.Command {
	var svg bool
	cmd := &cobra.Command{
		Use:     "graph",
		Short:   "Draw the regions as this node reaches them, for Graphviz or as SVG",
		Example: "  ravenctl graph | dot -Tpng > regions.png\n  ravenctl graph --svg > regions.svg",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := local.Ask(cmd.Context(), local.SocketPath(c.stateDir))
			if err != nil {
				return fmt.Errorf("%w; is raven-agent running here, and is --state-dir its own?", err)
			}
			draw := graph.DOT
			if svg {
				draw = graph.SVG
			}
			return c.print(r.Peers, func(w io.Writer) error { return draw(w, r) })
		},
	}
	cmd.Flags().BoolVar(&svg, "svg", false, "SVG instead of DOT")
	return cmd
}
