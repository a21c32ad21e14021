package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/test/lab/checks"
)

func demoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the tutorial's cluster, with acceleration and without, and check that its regions talk",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return enclosed(keep, func(ctx context.Context, name string) error {
				return demo(ctx, name, keep, os.Stdout)
			})
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the labs up and say how to enter them")
	return cmd
}

func demo(ctx context.Context, name string, keep bool, out io.Writer) error {
	began := time.Now()
	labs := checks.DemoLabs()
	fmt.Fprintln(out, "Three regions, each behind its own NAT or public address, meet in a router that knows no inner "+
		"address.\nThe same traffic runs in two labs: accelerated by eBPF, and on the kernel's own tables.")
	fmt.Fprintln(out)
	var outcomes []checks.Outcome
	checks.Demo(ctx, name, labs, keep, func(o checks.Outcome) {
		outcomes = append(outcomes, o)
		fmt.Fprintf(out, "%5.1fs %s %-11s %s%s\n", time.Since(began).Seconds(), verdict(o), o.Lab, o.Check.Says, detail(o))
	})
	if keep {
		fmt.Fprintf(out, "\nBoth labs stay. `enter` means the accelerated one; the other's hosts are called %s-%s:hangzhou-2 and so on.\n",
			name, labs[1].Name)
	}
	fmt.Fprintln(out)
	if err := table(out, labs, outcomes); err != nil {
		return err
	}
	return total(out, outcomes, began)
}

func verdict(o checks.Outcome) string {
	if o.Err != nil {
		return "FAIL"
	}
	return "pass"
}

func detail(o checks.Outcome) string {
	if o.Err != nil {
		return "\n      " + strings.ReplaceAll(o.Err.Error(), "\n", "\n      ")
	}
	if o.Evidence == "" {
		return ""
	}
	return "\n             " + o.Evidence
}

// table has a row for each check and a column for each lab.
func table(out io.Writer, labs []checks.DemoLab, outcomes []checks.Outcome) error {
	cells := map[string]map[string]string{}
	for _, o := range outcomes {
		if cells[o.Check.Says] == nil {
			cells[o.Check.Says] = map[string]string{}
		}
		cells[o.Check.Says][o.Lab] = strings.TrimSpace(verdict(o) + " " + brief(o))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "CHECK")
	for _, l := range labs {
		fmt.Fprint(w, "\t", strings.ToUpper(l.Name))
	}
	fmt.Fprintln(w)
	for _, row := range checks.Order(labs) {
		if cells[row] == nil {
			continue
		}
		fmt.Fprint(w, row)
		for _, l := range labs {
			cell := cells[row][l.Name]
			if cell == "" {
				cell = "-"
			}
			fmt.Fprint(w, "\t", cell)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	return nil
}

// brief is the evidence's TTL, where it has one.
func brief(o checks.Outcome) string {
	for word := range strings.FieldsSeq(o.Evidence) {
		if o.Err == nil && strings.HasPrefix(word, "ttl=") {
			return word
		}
	}
	return ""
}

// total prints the last line and fails where a check did.
func total(out io.Writer, outcomes []checks.Outcome, began time.Time) error {
	failed := 0
	for _, o := range outcomes {
		if o.Err != nil {
			failed++
		}
	}
	fmt.Fprintf(out, "\nin %.1f s\n%d passed, %d failed\n", time.Since(began).Seconds(), len(outcomes)-failed, failed)
	if failed > 0 {
		return exitStatus(1)
	}
	return nil
}
