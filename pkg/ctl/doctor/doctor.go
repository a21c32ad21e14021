// Package doctor looks for what keeps a node's cross-region traffic from flowing: it compares the kernel with the plan,
// asks the agent where one runs, and knocks at the neighbours. It changes nothing.
package doctor

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/ctl/table"
)

// Level of a finding.
type Level string

const (
	// OK: a check found nothing.
	OK Level = "ok"
	// Warn: traffic flows, or may flow, but something will hurt.
	Warn Level = "warn"
	// Fail: traffic of some kind does not flow, or the node does not repair itself.
	Fail Level = "FAIL"
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Node where the cause lies, as far as this node can tell.
	Node string `json:"node"`
	Says string `json:"says"`
	// Remedy says what to do; empty with OK.
	Remedy string `json:"remedy,omitempty"`
}

// check is one look. It returns nothing where all is well.
type check struct {
	name string
	look func(context.Context, *Subject) []Finding
}

// enough is the most that all checks together may take; what is not finished then is told as not known.
const enough = 4 * time.Second

// Run runs all checks side by side and returns their findings in the checks' order, an OK for those without any.
// Checks stay on the calling thread's network namespace by being run on it or on threads that were made from it.
func Run(ctx context.Context, s *Subject) []Finding {
	ctx, cancel := context.WithTimeout(ctx, enough)
	defer cancel()
	found := make([][]Finding, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { found[i] = c.look(ctx, s) })
	}
	all.Wait()
	var out []Finding
	for i, c := range checks {
		if len(found[i]) == 0 {
			out = append(out, Finding{Check: c.name, Level: OK, Node: s.Node, Says: c.name + " is in order"})
		}
		for _, f := range found[i] {
			f.Check = c.name
			if f.Node == "" {
				f.Node = s.Node
			}
			out = append(out, f)
		}
	}
	return out
}

// Worst is the worst level among findings.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		if f.Level == Fail || f.Level == Warn && worst == OK {
			worst = f.Level
		}
	}
	return worst
}

// Write prints findings with their remedies; those that are well only with all.
func Write(w io.Writer, findings []Finding, all bool) error {
	const indent = "      "
	well := 0
	for _, f := range findings {
		if f.Level == OK && !all {
			well++
			continue
		}
		lines := table.Wrap(fmt.Sprintf("%s on %s: %s", f.Check, f.Node, f.Says), table.Width-len(indent))
		lines[0] = fmt.Sprintf("%-4s  ", f.Level) + lines[0]
		if f.Remedy != "" {
			lines = append(lines, table.Wrap("-> "+f.Remedy, table.Width-len(indent))...)
		}
		if _, err := fmt.Fprintln(w, strings.Join(lines, "\n"+indent)); err != nil {
			return err
		}
	}
	if well > 0 {
		_, err := fmt.Fprintf(w, "checks that found nothing: %d (--all lists them)\n", well)
		return err
	}
	return nil
}
