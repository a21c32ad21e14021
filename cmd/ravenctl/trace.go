package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/ctl/doctor"
	"github.com/ravencni/raven/pkg/ctl/trace"
	"github.com/ravencni/raven/pkg/program"
)

// errStuck ends trace where the packet does not get on.
var errStuck = errors.New("the packet does not get on as planned; ravenctl doctor on that node says why")

// mostHops bounds a walk: member, gateway, relay, gateway, member, and some for a plan that is about to change.
const mostHops = 8

func (c *command) traceCommand() *cobra.Command {
	var follow bool
	o := doctor.Options{}
	cmd := &cobra.Command{
		Use:   "trace SRC DST",
		Short: "Follow a packet: plan, map entry, test run of the program, kernel route, next node",
		Long: "trace shows what this node does to a packet from SRC to DST, by walking the live maps and by running the program that\n" +
			"would meet it on a TCP segment (from port 1 to port 1, which counts as one packet). With --follow it goes on at the next\n" +
			"nodes by kubectl exec. It ends with status 1 where the packet gets stuck.",
		Example: "  ravenctl trace 10.244.19.3 10.244.17.19\n  ravenctl trace 10.244.19.3 10.244.17.19 --node edge-1 --follow",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(2)(cmd, args); err != nil {
				return program.Usage("%w: a source and a destination address; see %s --help", err, cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := netip.ParseAddr(args[0])
			if err != nil {
				return program.Usage("the source %q is no address; write it like 10.244.1.5", args[0])
			}
			dst, err := netip.ParseAddr(args[1])
			if err != nil {
				return program.Usage("the destination %q is no address; write it like 10.244.1.5", args[1])
			}
			o.StateDir = c.stateDir
			hop, err := trace.Walk(cmd.Context(), doctor.Look(cmd.Context(), o), src.Unmap(), dst.Unmap())
			if err != nil {
				return err
			}
			hops := []*trace.Hop{hop}
			if follow {
				if hops, err = c.follow(cmd.Context(), hops, src, dst); err != nil {
					return err
				}
			}
			if err := c.print(hops, func(w io.Writer) error { return trace.Write(w, hops) }); err != nil {
				return err
			}
			for _, h := range hops {
				if h.Bad() {
					return fmt.Errorf("on %s %w", h.Node, errStuck)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "go on at the next nodes, by kubectl exec into their agents' pods")
	cmd.Flags().StringVar(&o.Node, "node-name", "", "name of this node where no agent tells")
	return cmd
}

// follow goes on from the last hop until the packet ends.
func (c *command) follow(ctx context.Context, hops []*trace.Hop, src, dst netip.Addr) ([]*trace.Hop, error) {
	if err := kubectlFound(); err != nil {
		return nil, err
	}
	for last := hops[0]; last.Next != "" && len(hops) < mostHops; last = hops[len(hops)-1] {
		var out bytes.Buffer
		there := &command{out: &out, err: c.err}
		err := there.onNode(ctx, last.Next, []string{"trace", src.String(), dst.String(), "-o", "json"})
		var more []*trace.Hop
		if jsonErr := json.Unmarshal(out.Bytes(), &more); jsonErr != nil || len(more) == 0 {
			return nil, fmt.Errorf("go on at node %s: %w", last.Next, errors.Join(err, jsonErr))
		}
		hops = append(hops, more...)
	}
	return hops, nil
}
