package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/program"
	"github.com/ravencni/raven/pkg/version"
)

const examples = `  # What this node does, and what is wrong with it:
  ravenctl status
  ravenctl doctor

  # Which way a packet takes, and what stops it:
  ravenctl trace 10.244.19.3 10.244.17.19

  # The same for another node of the cluster, by kubectl exec into its agent's pod:
  ravenctl doctor --node edge-1

  # Why this node drops packets, and live, every second:
  ravenctl drops
  ravenctl drops --watch=1s

  # For programs:
  ravenctl drops --all -o json`

// command is the program with its outputs.
type command struct {
	out, err io.Writer
	root     *cobra.Command
	// output is text or json.
	output string
	// node is another node that the command is to run on.
	node     string
	stateDir string
}

func newCommand(out, err io.Writer) *command {
	c := &command{out: out, err: err}
	c.root = &cobra.Command{
		Use:           "ravenctl",
		Short:         "Look into Raven: what it does on a node, and what is wrong",
		Example:       examples,
		Args:          noArguments,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version.String(),
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.output != "text" && c.output != "json" {
				return program.Usage("-o is %q: use text or json", c.output)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.root.SetOut(out)
	c.root.SetErr(err)
	c.root.CompletionOptions.DisableDefaultCmd = true
	c.root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return program.Usage("%w; see %s --help", err, cmd.CommandPath())
	})
	c.root.PersistentFlags().StringVarP(&c.output, "output", "o", "text", "text: for people; json: for programs")
	c.root.PersistentFlags().StringVar(&c.node, "node", "", "run the command on this node of the cluster, by kubectl exec into the agent's pod")
	c.root.PersistentFlags().StringVar(&c.stateDir, "state-dir", datapath.StateDir, "the agent's state folder, where its socket is")
	c.root.AddCommand(c.statusCommand(), c.doctorCommand(), c.traceCommand(), c.dropsCommand(), c.flowsCommand(), c.graphCommand(), c.gatherCommand(), c.rotateKeyCommand(), c.benchCommand())
	c.root.AddCommand(c.benchOnNode(os.Stdin)...)
	return c
}

// as has help and mistakes speak of the program by the name that it was called by.
func (c *command) as(name string) *command {
	c.root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: name}
	c.root.Example = strings.ReplaceAll(c.root.Example, "ravenctl", name)
	for _, sub := range c.root.Commands() {
		sub.Example = strings.ReplaceAll(sub.Example, "ravenctl", name)
	}
	return c
}

func noArguments(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return program.Usage("%w; see %s --help", err, cmd.CommandPath())
	}
	return nil
}

func (c *command) run(ctx context.Context, args []string) error {
	if args == nil {
		args = []string{} // cobra takes nil for os.Args
	}
	if rest, node, ok := withoutNode(args); ok && node != "" {
		if err := kubectlFound(); err != nil {
			return err
		}
		return c.onNode(ctx, node, rest)
	}
	c.root.SetArgs(args)
	return c.root.ExecuteContext(ctx)
}

// print writes value as JSON, or calls text where people read.
func (c *command) print(value any, text func(io.Writer) error) error {
	if c.output != "json" {
		return text(c.out)
	}
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	if err := e.Encode(value); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
