package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/test/kernels"
)

// testOptions choose what test runs.
type testOptions struct {
	series, suites []string
	record         bool
	verbose        bool
}

// countsFile holds the recorded instruction counts, from the root of the tree.
const countsFile = "bench/results/verifier.json"

func testCommand() *cobra.Command {
	var o testOptions
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Run all suites on all kernels and print the matrix; from the root of the tree",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return test(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.series, "kernel", nil, "only these series")
	f.StringSliceVar(&o.suites, "suite", nil, "only these suites, by name")
	f.BoolVar(&o.record, "record", false, "record the verifier's instruction counts instead of comparing them")
	f.BoolVar(&o.verbose, "verbose", false, "show all that the guests say")
	return cmd
}

func test(ctx context.Context, o testOptions) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the folder of the programs: %w", err)
	}
	tree, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the tree: %w", err)
	}
	recorded, err := kernels.ReadCounts(filepath.Join(tree, countsFile))
	if err != nil {
		return err
	}
	var booted []kernels.Kernel
	var columns []string
	for _, r := range kernels.Releases() {
		if len(o.series) > 0 && !slices.Contains(o.series, r.Series) {
			continue
		}
		k, err := r.Fetch(ctx, false)
		if err != nil {
			return err
		}
		booted, columns = append(booted, k), append(columns, r.Series)
		fmt.Println(k.Package)
	}
	matrix, counts := kernels.NewMatrix(columns...), kernels.Counts{}
	for _, s := range kernels.Suites(filepath.Dir(self), tree) {
		if len(o.suites) > 0 && !slices.Contains(o.suites, s.Name) {
			continue
		}
		matrix.Want(s)
		for _, k := range booted {
			outcome, err := run(ctx, k, s, o.verbose)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			matrix.Put(s, k.Series, s.Cells(outcome, err))
			if s.Counts && err == nil {
				if err := counts.Add(k.Series, outcome.Report); err != nil {
					return err
				}
			}
		}
	}
	fmt.Println()
	err = matrix.Print(os.Stdout)
	if len(counts) == 0 {
		return err
	}
	fmt.Println()
	against := recorded
	if o.record {
		against = counts
	}
	err = errors.Join(err, counts.Compare(os.Stdout, against))
	if o.record {
		for series, c := range counts {
			recorded[series] = c
		}
		err = errors.Join(err, recorded.Write(filepath.Join(tree, countsFile)))
	}
	return err
}

// run runs a suite on a kernel and says how it went; what the guest said goes out where it failed.
func run(ctx context.Context, k kernels.Kernel, s kernels.Suite, verbose bool) (kernels.Outcome, error) {
	if s.Job == nil {
		return kernels.Outcome{}, nil
	}
	fmt.Printf("%-6s %s, %s ", k.Series, s.Name, s.Driver)
	progress := io.Discard
	if verbose {
		fmt.Println()
		progress = os.Stdout
	}
	outcome, err := k.Run(ctx, *s.Job, progress)
	switch {
	case err != nil:
		fmt.Printf("gave nothing: %v\n%s", err, outcome.Output)
	case outcome.Status != 0:
		fmt.Printf("exit status %d after %s\n", outcome.Status, outcome.Took.Round(time.Second))
		if !verbose {
			fmt.Println(outcome.Output)
		}
	default:
		fmt.Printf("passed in %s\n", outcome.Took.Round(time.Second))
	}
	return outcome, err
}
