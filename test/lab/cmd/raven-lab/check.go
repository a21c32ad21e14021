package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/test/kernels"
	"github.com/ravencni/raven/test/lab"
	"github.com/ravencni/raven/test/lab/checks"
)

func checkCommand() *cobra.Command {
	var options lab.AgentOptions
	var report bool
	cmd := &cobra.Command{
		Use:   "check [NAME...]",
		Short: "Run single checks, in a fresh lab for each set of flags that agents must have; without a name, list them",
		RunE: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 {
				for _, c := range checks.All() {
					fmt.Printf("%-40s %s\n", c.Name, c.Says)
				}
				return nil
			}
			chosen, err := choose(names)
			if err != nil {
				return err
			}
			return enclosed(false, func(ctx context.Context, name string) error {
				return check(ctx, name, options, chosen, report)
			})
		},
	}
	cmd.Flags().StringVar(&options.Acceleration, "acceleration", "auto", "auto or off")
	cmd.Flags().StringVar(&options.Driver, "vpn-driver", "wireguard", "wireguard, ipsec or plain")
	cmd.Flags().StringArrayVar(&options.Extra, "agent-flag", nil, "one more flag for every agent")
	cmd.Flags().BoolVar(&report, "report", false, "write each outcome to the file that "+kernels.ReportVariable+" names")
	return cmd
}

func choose(names []string) (chosen []checks.Check, err error) {
	known := map[string]checks.Check{checks.ReachAll.Name: checks.ReachAll}
	for _, c := range checks.All() {
		known[c.Name] = c
	}
	for _, name := range names {
		c, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("there is no check %q; `raven-lab check` lists them", name)
		}
		chosen = append(chosen, c)
	}
	return chosen, nil
}

// check runs the chosen checks: those that need agents of the same flags in one lab, in their order.
func check(ctx context.Context, name string, options lab.AgentOptions, chosen []checks.Check, report bool) error {
	began := time.Now()
	var outcomes []checks.Outcome
	for len(chosen) > 0 {
		flags := chosen[0].Flags
		var now, later []checks.Check
		for _, c := range chosen {
			if slices.Equal(c.Flags, flags) {
				now = append(now, c)
			} else {
				later = append(later, c)
			}
		}
		with := options
		with.Extra = slices.Concat(options.Extra, flags)
		err := checkIn(ctx, fmt.Sprintf("%s%d", name, len(chosen)), with, now, func(o checks.Outcome) error {
			outcomes = append(outcomes, o)
			fmt.Printf("%5.1fs %s %s%s\n", time.Since(began).Seconds(), verdict(o), o.Check.Says, detail(o))
			if report {
				return tell(o)
			}
			return nil
		})
		if err != nil {
			return err
		}
		chosen = later
	}
	return total(os.Stdout, outcomes, began)
}

// checkIn runs checks in a fresh lab, and ends it.
func checkIn(ctx context.Context, name string, options lab.AgentOptions, chosen []checks.Check, tell func(checks.Outcome) error) (err error) {
	l, err := lab.Start(ctx, name, lab.Tutorial())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.StartAgents(ctx, options); err != nil {
		return err
	}
	if err := l.ServeEcho(ctx); err != nil {
		return err
	}
	for _, c := range chosen {
		if err := tell(checks.One(ctx, options.Acceleration, l, c)); err != nil {
			return err
		}
	}
	return nil
}

// tell writes an outcome for the machine that runs this one.
func tell(o checks.Outcome) error {
	l := kernels.LabOutcome{Check: o.Check.Name, Evidence: o.Evidence, Seconds: o.Took.Seconds()}
	if o.Err != nil {
		l.Error = o.Err.Error()
	}
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("report on %s: %w", o.Check.Name, err)
	}
	f, err := os.OpenFile(os.Getenv(kernels.ReportVariable), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("report on %s: %w", o.Check.Name, err)
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close())
}
