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
		if c.Hidden {
			continue
		}
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

func TestAsAPluginOfKubectlItIsCalledKubectlRaven(t *testing.T) {
	for path, want := range map[string]string{"/usr/local/bin/kubectl-raven": "kubectl raven", "bin/ravenctl": "ravenctl", "/x/kubectl_raven": "ravenctl"} {
		if got := nameOf(path); got != want {
			t.Errorf("%s is called %q, want %q", path, got, want)
		}
	}
	var out bytes.Buffer
	if err := newCommand(&out, &out).as("kubectl raven").run(t.Context(), []string{"flows", "--help"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"  kubectl raven flows [ADDRESS...]", "  kubectl raven flows 10.244.19.3 --watch=1s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, out.String())
		}
	}
	err := newCommand(&out, &out).as("kubectl raven").run(t.Context(), []string{"drops", "extra"})
	if err == nil || !strings.Contains(err.Error(), "see kubectl raven drops --help") {
		t.Errorf("a mistake leads to %v", err)
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
		{[]string{"flows", "pod"}, "write it like 10.244.1.5"},
		{[]string{"flows", "--limit=-1"}, "must not be negative"},
		{[]string{"trace", "10.0.0.1"}, "a source and a destination address"},
		{[]string{"trace", "pod", "10.0.0.1"}, "write it like 10.244.1.5"},
		{[]string{"rotate-key"}, "name one node"},
		{[]string{"bench", "edge-1"}, "name two nodes"},
		{[]string{"bench", "edge-1", "edge-1"}, "name two nodes"},
		{[]string{"bench", "edge-1", "edge-2", "--for=2h"}, "a minute at most"},
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
