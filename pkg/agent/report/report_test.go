package report_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/agent/report"
	"github.com/ravencni/raven/pkg/topology"
)

func TestAProblemIsToldOnceUntilItChangesOrGoes(t *testing.T) {
	var out bytes.Buffer
	r := report.New(slog.New(slog.NewTextHandler(&out, nil)))
	lines := func() int {
		n := strings.Count(out.String(), "\n")
		out.Reset()
		return n
	}
	a := topology.Problem{Object: "Node/a", Reason: "NoCIDR", Message: "one"}
	b := topology.Problem{Object: "Node/b", Reason: "NoCIDR", Message: "two"}
	changed := a
	changed.Message = "three"
	for i, step := range []struct {
		set  []topology.Problem
		want int
	}{
		{nil, 0},
		{[]topology.Problem{a, b, a}, 2},
		{[]topology.Problem{b, a}, 0},
		{[]topology.Problem{changed, b}, 1}, // the new words, and no word about the old ones
		{[]topology.Problem{b}, 1},          // gone
		{[]topology.Problem{a, b}, 1},       // back
		{nil, 2},
	} {
		r.Set(step.set, 0)
		text := out.String()
		if got := lines(); got != step.want {
			t.Errorf("step %d wrote %d lines, want %d:\n%s", i, got, step.want, text)
		}
	}
}

func TestProblemsElsewhereAreOneLineWhileTheirNumberStays(t *testing.T) {
	var out bytes.Buffer
	r := report.New(slog.New(slog.NewTextHandler(&out, nil)))
	for i, step := range []struct {
		count int
		want  string
	}{{0, ""}, {4000, "count=4000"}, {4000, ""}, {0, "count=0"}} {
		r.Set(nil, step.count)
		if text := out.String(); strings.Count(text, "\n") != min(1, len(step.want)) || !strings.Contains(text, step.want) {
			t.Errorf("step %d logged %q, want %q", i, text, step.want)
		}
		out.Reset()
	}
}
