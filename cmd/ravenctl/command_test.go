package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/program"
)

func TestHelpShowsExamplesAndTheVersionIsSaid(t *testing.T) {
	var out bytes.Buffer
	if err := newCommand(&out, &out).run(t.Context(), []string{"--help"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range newCommand(&out, &out).root.Commands() {
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example or no short description", c.Name())
		}
		if !strings.Contains(out.String(), "\n  "+c.Name()) {
			t.Errorf("--help does not list %s:\n%s", c.Name(), out.String())
		}
	}
	out.Reset()
	if err := newCommand(&out, &out).run(t.Context(), []string{"--version"}); err != nil || !strings.HasPrefix(out.String(), "ravenctl version ") {
		t.Errorf("--version: %v %q", err, out.String())
	}
}

func TestMistakesAreRefusedWithTheWayOut(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"drops", "-o", "yaml"}, "use text or json"},
		{[]string{"drops", "--watch=-1s"}, "must be positive"},
		{[]string{"drops", "--no-such-flag"}, "see ravenctl drops --help"},
		{[]string{"drops", "extra"}, "see ravenctl drops --help"},
		{[]string{"trace", "10.0.0.1"}, "a source and a destination address"},
		{[]string{"trace", "pod", "10.0.0.1"}, "write it like 10.244.1.5"},
		{[]string{"rotate-key"}, "name one node"},
		{[]string{"rotate-key", "edge-1", "--timeout=0s"}, "must be positive"},
		{[]string{"extra"}, "see ravenctl --help"},
	} {
		var out bytes.Buffer
		err := newCommand(&out, &out).run(t.Context(), c.args)
		var usage program.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.args, err, c.says)
		}
	}
}
