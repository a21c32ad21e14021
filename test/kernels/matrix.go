package kernels

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// State is what became of one check.
type State string

// The states of a cell. There is no other: a cell without any is a mistake of the matrix.
const (
	Passed State = "passed"
	Failed State = "FAILED"
	NotRun State = "not run"
)

// Cell is one check with one driver on one kernel.
type Cell struct {
	State State
	Note  string // evidence, the cause of a failure, or the reason for which it did not run
}

type place struct{ check, driver, kernel string }

// Matrix collects cells.
type Matrix struct {
	kernels []string
	rows    []place // without kernel, in the order in which they came
	cells   map[place]Cell
}

// NewMatrix has a column for each kernel.
func NewMatrix(kernels ...string) *Matrix {
	return &Matrix{kernels: kernels, cells: map[place]Cell{}}
}

// Want adds the rows of a suite, so that what nobody fills shows.
func (m *Matrix) Want(s Suite) {
	for _, check := range s.rows() {
		m.rows = append(m.rows, place{check: check, driver: s.Driver})
	}
}

// Put fills the cells of a suite on a kernel.
func (m *Matrix) Put(s Suite, kernel string, cells map[string]Cell) {
	for check, c := range cells {
		m.cells[place{check, s.Driver, kernel}] = c
	}
}

// Print writes the table, then the reasons and causes, and returns an error that counts what failed and what has neither
// a result nor a reason.
func (m *Matrix) Print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "CHECK\tDRIVER")
	for _, k := range m.kernels {
		fmt.Fprintf(table, "\t%s", k)
	}
	fmt.Fprintln(table)
	var failed, empty int
	var notes []string
	numbers := map[string]int{}
	for _, row := range m.rows {
		fmt.Fprintf(table, "%s\t%s", row.check, row.driver)
		for _, k := range m.kernels {
			c := m.cells[place{row.check, row.driver, k}]
			switch {
			case c.State == "" || c.State == NotRun && c.Note == "":
				empty++
				fmt.Fprint(table, "\tNO REASON")
				continue
			case c.State == Passed:
				fmt.Fprint(table, "\tpassed")
				continue
			case c.State == Failed:
				failed++
			}
			if numbers[c.Note] == 0 {
				notes = append(notes, c.Note)
				numbers[c.Note] = len(notes)
			}
			fmt.Fprintf(table, "\t%s [%d]", c.State, numbers[c.Note])
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the matrix: %w", err)
	}
	for i, note := range notes {
		fmt.Fprintf(w, "[%d] %s\n", i+1, note)
	}
	if failed+empty > 0 {
		return fmt.Errorf("%d cells of the matrix failed, %d have neither a result nor a reason", failed, empty)
	}
	return nil
}
