package kernels

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
)

// Counts says how many instructions the verifier of each kernel series processed to accept each program.
type Counts map[string]map[string]uint32 // series, program

// tolerated is how far a count may rise above the recorded one, in hundredths, before somebody has to look: an innocent
// change of C moves it by less, a loop that the verifier no longer prunes by much more.
const tolerated = 25

// ReadCounts reads a file that Write wrote.
func ReadCounts(file string) (Counts, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the recorded instruction counts: %w", err)
	}
	var c Counts
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("read the recorded instruction counts in %s: %w", file, err)
	}
	return c, nil
}

// Write records c.
func (c Counts) Write(file string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("record the instruction counts: %w", err)
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("record the instruction counts: %w", err)
	}
	return nil
}

// Add takes a suite's report of one kernel in.
func (c Counts) Add(series, report string) error {
	var counts map[string]uint32
	if err := json.Unmarshal([]byte(report), &counts); err != nil {
		return fmt.Errorf("read the instruction counts of %s from %q: %w", series, report, err)
	}
	c[series] = counts
	return nil
}

// Compare prints the counts of all kernels beside the recorded ones and returns an error that names what rose too far, or
// was not recorded.
func (c Counts) Compare(w io.Writer, recorded Counts) error {
	programs := map[string]bool{}
	for _, counts := range c {
		for p := range counts {
			programs[p] = true
		}
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	series := slices.Sorted(maps.Keys(c))
	fmt.Fprint(table, "instructions processed\t")
	for _, s := range series {
		fmt.Fprintf(table, "%s\trecorded\t", s)
	}
	fmt.Fprintln(table)
	var wrong []string
	for _, p := range slices.Sorted(maps.Keys(programs)) {
		fmt.Fprintf(table, "%s\t", p)
		for _, s := range series {
			is, was := c[s][p], recorded[s][p]
			fmt.Fprintf(table, "%d\t%d\t", is, was)
			if is == 0 || uint64(is)*100 > uint64(was)*(100+tolerated) {
				wrong = append(wrong, fmt.Sprintf("%s on %s: %d, recorded %d", p, s, is, was))
			}
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the instruction counts: %w", err)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the verifier processes over %d %% more instructions than recorded, or counts differ in their "+
			"programs (raven-kernels test --record takes the new ones): %q", tolerated, wrong)
	}
	return nil
}
