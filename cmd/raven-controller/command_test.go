package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/ravencni/raven/pkg/controller"
	"github.com/ravencni/raven/pkg/program"
)

func TestHelpShowsExamplesAndEveryFlagsMeaning(t *testing.T) {
	var out bytes.Buffer
	if err := newCommand(&out, &out).run(t.Context(), []string{"--help"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Examples:", "--leader-elect", "--service-cidrs", "--metric-bind-addr", "1.30 or later"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("--help does not say %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := newCommand(&out, &out).run(t.Context(), []string{"--version"}); err != nil || !strings.HasPrefix(out.String(), "raven-controller version ") {
		t.Errorf("--version: %v %q", err, out.String())
	}
}

func TestWrongFlagsAreRefusedWithTheWayToWriteThem(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--service-cidrs=10.96.0.0"}, "write it like 10.96.0.0/12"},
		{[]string{"--log-level=loud"}, "use debug, info, warn or error"},
		{[]string{"--leader-elect-lease-duration=-1s"}, "must not be negative"},
		{[]string{"--no-such-flag"}, "see raven-controller --help"},
		{[]string{"extra"}, "see raven-controller --help"},
	} {
		var out bytes.Buffer
		err := newCommand(&out, &out).run(t.Context(), c.args)
		var usage program.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.args, err, c.says)
		}
	}
}

func TestFlagsReachTheController(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	const content = `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: ""}}],
		clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]}`
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := newCommand(&out, &out)
	called := false
	c.work = func(_ context.Context, config *rest.Config, o controller.Options) error {
		called = true
		if config.Host != "https://192.0.2.1:6443" || o.LeaderElection || o.MetricsAddress != "0" || len(o.ServiceCIDRs) != 2 ||
			o.ServiceCIDRs[0].String() != "10.96.0.0/12" || o.Log == nil {
			t.Errorf("host %s, options %+v", config.Host, o)
		}
		return nil
	}
	err := c.run(t.Context(), []string{"--kubeconfig", kubeconfig, "--leader-elect=false", "--metric-bind-addr=0", "--service-cidrs=10.96.0.1/12,fd00::/112"})
	if err != nil || !called {
		t.Errorf("called %t: %v", called, err)
	}
}
