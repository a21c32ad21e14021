package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/ravencni/raven/test/kernels"
)

// testOptions choose what test runs.
type testOptions struct {
	series, suites []string
	driver, logs   string
	jobs           int
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
		Example: "  raven-kernels test\n" +
			"  raven-kernels test --kernel 6.12 --suite lab --driver ipsec --verbose\n" +
			"  raven-kernels test --jobs 2 --logs /var/tmp/kernels",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return test(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.series, "kernel", nil, "only these series")
	f.StringArrayVar(&o.suites, "suite", nil, "only this suite, by name; may be given more than once")
	f.StringVar(&o.driver, "driver", "", "only suites of this driver, by its first word, such as ipsec")
	f.IntVar(&o.jobs, "jobs", 1, "how many guests run at a time; each wants a processor")
	f.StringVar(&o.logs, "logs", "", "keep what each guest says in a file of this folder")
	f.BoolVar(&o.record, "record", false, "record the verifier's instruction counts instead of comparing them")
	f.BoolVar(&o.verbose, "verbose", false, "show all that the guests say")
	return cmd
}

// chosen are the suites to run, and the kernels' series.
func (o testOptions) chosen(all []kernels.Suite) (suites []kernels.Suite, releases []kernels.Release, err error) {
	names, drivers, series := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range all {
		driver, _, _ := strings.Cut(s.Driver, " ")
		names[s.Name], drivers[driver] = true, true
		if (len(o.suites) == 0 || slices.Contains(o.suites, s.Name)) && (o.driver == "" || o.driver == driver) {
			suites = append(suites, s)
		}
	}
	for _, r := range kernels.Releases() {
		series[r.Series] = true
		if len(o.series) == 0 || slices.Contains(o.series, r.Series) {
			releases = append(releases, r)
		}
	}
	check := func(flag string, given []string, known map[string]bool) {
		for _, g := range given {
			if !known[g] {
				err = errors.Join(err, fmt.Errorf("--%s: there is no %q; there are: %s", flag, g, strings.Join(slices.Sorted(maps.Keys(known)), "; ")))
			}
		}
	}
	check("suite", o.suites, names)
	check("kernel", o.series, series)
	if o.driver != "" {
		check("driver", []string{o.driver}, drivers)
	}
	if o.jobs < 1 {
		err = errors.Join(err, fmt.Errorf("--jobs: %d is less than one", o.jobs))
	}
	if err == nil && len(suites) == 0 {
		err = fmt.Errorf("no suite of these names has the driver %s", o.driver)
	}
	return suites, releases, err
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
	suites, releases, err := o.chosen(kernels.Suites(filepath.Dir(self), tree))
	if err != nil {
		return err
	}
	if o.logs != "" {
		if err := os.MkdirAll(o.logs, 0o755); err != nil {
			return fmt.Errorf("make the folder of --logs: %w", err)
		}
	}
	var booted []kernels.Kernel
	var columns []string
	for _, r := range releases {
		k, err := r.Fetch(ctx, false)
		if err != nil {
			return err
		}
		booted, columns = append(booted, k), append(columns, r.Series)
		fmt.Println(k.Package)
	}
	matrix, counts := kernels.NewMatrix(columns...), kernels.Counts{}
	var put sync.Mutex
	guests, ctx := errgroup.WithContext(ctx)
	guests.SetLimit(o.jobs)
	for _, s := range suites {
		matrix.Want(s)
		for _, k := range booted {
			guests.Go(func() error {
				outcome, err := o.run(ctx, k, s)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				put.Lock()
				defer put.Unlock()
				matrix.Put(s, k.Series, s.Cells(outcome, err))
				if s.Counts && err == nil {
					return counts.Add(k.Series, outcome.Report)
				}
				return nil
			})
		}
	}
	if err := guests.Wait(); err != nil {
		return err
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
func (o testOptions) run(ctx context.Context, k kernels.Kernel, s kernels.Suite) (outcome kernels.Outcome, err error) {
	if s.Job == nil {
		return kernels.Outcome{}, nil
	}
	name := fmt.Sprintf("%-6s %s, %s", k.Series, s.Name, s.Driver)
	fmt.Println(name, "runs")
	progress := io.Discard
	if o.verbose {
		progress = os.Stdout
	}
	if o.logs != "" {
		file, fileErr := os.Create(filepath.Join(o.logs, strings.NewReplacer(" ", "-", ",", "", "(", "", ")", "").Replace(
			fmt.Sprintf("%s %s %s.log", k.Series, s.Name, s.Driver))))
		if fileErr != nil {
			return outcome, fmt.Errorf("keep what the guest says: %w", fileErr)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		progress = io.MultiWriter(progress, file)
	}
	outcome, err = k.Run(ctx, *s.Job, progress)
	switch {
	case err != nil:
		fmt.Printf("%s gave nothing: %v\n%s", name, err, outcome.Output)
	case outcome.Status != 0:
		fmt.Printf("%s ended with status %d after %s\n", name, outcome.Status, outcome.Took.Round(time.Second))
		if !o.verbose && o.logs == "" {
			fmt.Println(outcome.Output)
		}
	default:
		fmt.Printf("%s passed in %s\n", name, outcome.Took.Round(time.Second))
	}
	return outcome, err
}
