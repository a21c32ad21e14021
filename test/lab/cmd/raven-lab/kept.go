package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/test/lab"
)

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down [LAB...]",
		Short: "End kept labs, all of them where none is named",
		RunE: func(_ *cobra.Command, names []string) error {
			labs, err := lab.KeptLabs()
			if err != nil {
				return err
			}
			chosen := map[string]bool{}
			for _, name := range names {
				chosen[name] = true
			}
			for _, k := range labs {
				if len(names) > 0 && !chosen[k.Name] {
					continue
				}
				delete(chosen, k.Name)
				err = errors.Join(err, k.End())
				fmt.Printf("lab %s is down\n", k.Name)
			}
			for name := range chosen {
				err = errors.Join(err, fmt.Errorf("no lab %q is kept", name))
			}
			return err
		},
	}
}

func enterCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "enter HOST",
		Short: "Open a shell on a node, a pod (NODE/a), a NAT box (REGION-nat) or the router (internet)",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return enter(name, args[0], "bash", "--norc", "-i")
		},
	}
	cmd.Flags().StringVar(&name, "lab", "", "the kept lab; needed where several are kept")
	return cmd
}

func execCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "exec HOST -- COMMAND...",
		Short: "Run a command on a host of a kept lab",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return enter(name, args[0], args[1:]...)
		},
	}
	cmd.Flags().StringVar(&name, "lab", "", "the kept lab; needed where several are kept")
	return cmd
}

func enter(name, host string, command ...string) error {
	k, err := theLab(name)
	if err != nil {
		return err
	}
	status, err := k.Enter(host, command...)
	if err == nil && status != 0 {
		err = exitStatus(status)
	}
	return err
}

// theLab finds the kept lab of that name, or the only one.
func theLab(name string) (lab.Kept, error) {
	labs, err := lab.KeptLabs()
	if err != nil {
		return lab.Kept{}, err
	}
	var found []lab.Kept
	for _, k := range labs {
		if k.Name == name || name == "" && k.Running() {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case name != "":
		return lab.Kept{}, fmt.Errorf("no lab %q is kept", name)
	case len(found) == 0:
		return lab.Kept{}, errors.New("no lab is kept; `raven-lab up` or `raven-lab demo --keep` makes one")
	default:
		fmt.Fprintln(os.Stderr, "Kept labs:")
		for _, k := range found {
			fmt.Fprintln(os.Stderr, " ", k.Name)
		}
		return lab.Kept{}, errors.New("several labs are kept; name one with --lab")
	}
}
