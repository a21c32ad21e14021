package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/program"
)

// called is what a command line led to.
type called struct {
	settings *settings
	cleanup  bool
	out, err string
	failure  error
}

// call runs the command with recorders in place of the daemon and of the cleanup.
func call(t *testing.T, args ...string) called {
	t.Helper()
	var out, errOut bytes.Buffer
	var got called
	c := newCommand(&out, &errOut)
	c.daemon = func(_ context.Context, s *settings, _ *slog.Logger) error { got.settings = s; return nil }
	c.cleanup = func(_ context.Context, s *settings, _ *slog.Logger, _ io.Writer) error {
		got.settings, got.cleanup = s, true
		return nil
	}
	got.failure = c.run(t.Context(), args)
	got.out, got.err = out.String(), errOut.String()
	return got
}

func TestABadFlagValueIsNamedWithItsRemedy(t *testing.T) {
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"--vpn-driver=openvpn"}, []string{"--vpn-driver", "wireguard"}},
		{[]string{"--ipsec-esp=hardware"}, []string{"--ipsec-esp", "hardware", "userspace"}},
		{[]string{"--vpn-psk-file=secret"}, []string{"--vpn-psk-file", "absolute"}},
		{[]string{"--vpn-driver=plain"}, []string{"does not encrypt", "--allow-unencrypted-tunnel"}},
		{[]string{"--nat-traversal"}, []string{"--nat-traversal", "exposed gateway"}},
		{[]string{"--node-name=Edge_1"}, []string{"--node-name", "Edge_1"}},
		{[]string{"--node-name=../../etc/x"}, []string{"--node-name"}},
		{[]string{"--node-ip=10.0.0"}, []string{"--node-ip", "192.168.0.10"}},
		{[]string{"--acceleration=on"}, []string{"--acceleration", "auto"}},
		{[]string{"--in-region-forwarding=vxlan"}, []string{"--in-region-forwarding", "overlay"}},
		{[]string{"--vpn-bind-port=70000"}, []string{"--vpn-bind-port", "65535"}},
		{[]string{"--service-cidrs=10.96.0.0"}, []string{"--service-cidrs", "10.96.0.0/12"}},
		{[]string{"--metric-bind-addr=10265"}, []string{"--metric-bind-addr", ":10265"}},
		{[]string{"--health-probe-addr=edge-1:80"}, []string{"--health-probe-addr", "edge-1"}},
		{[]string{"--metric-bind-addr=:1", "--health-probe-addr=:1"}, []string{"--health-probe-addr", "already"}},
		{[]string{"--log-level=loud"}, []string{"--log-level", "debug"}},
		{[]string{"--state-dir=relative"}, []string{"--state-dir", "absolute"}},
		{[]string{"--manifests=/m", "--kubeconfig=/k"}, []string{"either --manifests or --kubeconfig"}},
		{[]string{"--publish-dir=/p"}, []string{"--publish-dir", "--manifests"}},
		{[]string{"--cleanup-state"}, []string{"--cleanup-state", "--cleanup"}},
		{[]string{"--handshakes-per-second=-1"}, []string{"--handshakes-per-second", "0"}},
		{[]string{"--no-such-flag"}, []string{"--no-such-flag", "--help"}},
		{[]string{"--forward-node-ip=maybe"}, []string{"--forward-node-ip", "--help"}},
		{[]string{"argument"}, []string{"argument"}},
		{[]string{"--acceleration=on", "--node-ip=x"}, []string{"--acceleration", "--node-ip"}}, // all at once
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			got := call(t, append([]string{"--node-name=n1"}, c.args...)...)
			if got.settings != nil {
				t.Fatal("the agent started")
			}
			var usage program.UsageError
			if !errors.As(got.failure, &usage) {
				t.Fatalf("the failure %v would not end with code 2", got.failure)
			}
			for _, w := range c.says {
				if !strings.Contains(got.failure.Error(), w) {
					t.Errorf("%q does not say %q", got.failure, w)
				}
			}
		})
	}
}

func TestTheFlagsOfOldCommandLinesAreTakenWithAWarning(t *testing.T) {
	got := call(t, "--node-name", "n1", "--node-ip", "10.0.0.1", "--kubeconfig", "/k", "--vpn-driver", "wireguard",
		"--route-driver", "vxlan", "--vpn-bind-port", "4500", "--forward-node-ip=false", "--nat-traversal=false",
		"--keep-alive-interval", "10", "--keep-alive-timeout", "30", "--metric-bind-addr", ":10265", "--health-probe-addr", ":10275",
		"--proxy-external-addr=:10262", "--proxy-server-cert-dns-names", "a,b", "--proxy-metric-bind-addr", "--allow-unencrypted-tunnel")
	if got.failure != nil {
		t.Fatal(got.failure)
	}
	for _, flag := range []string{
		"--keep-alive-interval", "--keep-alive-timeout", "--proxy-external-addr", "--proxy-server-cert-dns-names", "--proxy-metric-bind-addr",
	} {
		if !strings.Contains(got.err, flag+" has no effect") {
			t.Errorf("no warning about %s in\n%s", flag, got.err)
		}
	}
	if n := strings.Count(got.err, "\n"); n != 5 {
		t.Errorf("%d warnings:\n%s", n, got.err)
	}
	s := got.settings
	if s.nodeName != "n1" || s.address.String() != "10.0.0.1" || s.cluster.Driver != "wireguard" || s.cluster.TunnelPort != 4500 ||
		s.cluster.ForwardNodeIP == nil || *s.cluster.ForwardNodeIP || !s.allowUnencrypted {
		t.Errorf("read %+v", s)
	}
}

func TestAFlagThatWasNotGivenLeavesTheChoiceToTheCluster(t *testing.T) {
	t.Setenv("NODE_NAME", "from-the-environment")
	got := call(t)
	if got.failure != nil {
		t.Fatal(got.failure)
	}
	s := got.settings
	if s.nodeName != "from-the-environment" || s.cluster.Driver != "" || s.cluster.ForwardNodeIP != nil || s.cluster.TunnelPort != 0 {
		t.Errorf("read %+v", s.cluster)
	}
	if s.metricAddr != ":10265" || s.healthAddr != ":10275" || s.stateDir != "/var/lib/raven" {
		t.Errorf("defaults %s %s %s", s.metricAddr, s.healthAddr, s.stateDir)
	}
}

func TestHelpShowsExamplesAndHidesWhatTestsNeed(t *testing.T) {
	got := call(t, "--help")
	if got.failure != nil {
		t.Fatal(got.failure)
	}
	for _, w := range []string{"raven-agent --cleanup", "--manifests", "--vpn-driver", "--in-region-forwarding"} {
		if !strings.Contains(got.out, w) {
			t.Errorf("the help does not show %s", w)
		}
	}
	for _, hidden := range []string{"force-", "wireguard-device"} {
		if strings.Contains(got.out, hidden) {
			t.Errorf("the help shows %s", hidden)
		}
	}
	if got := call(t, "--version"); got.failure != nil || !strings.HasPrefix(got.out, "raven-agent version ") {
		t.Errorf("--version prints %q, %v", got.out, got.failure)
	}
}

func TestCleanupNeedsNoSource(t *testing.T) {
	got := call(t, "--node-name=n1", "--cleanup", "--cleanup-state", "--vpn-driver=ipsec")
	if got.failure != nil || !got.cleanup || !got.settings.cleanupState {
		t.Errorf("got %+v", got)
	}
}

func TestProxyFlagsAreTakenOutWithTheirValues(t *testing.T) {
	rest, warnings := dropProxyFlags([]string{"--a", "--proxy-x", "1", "--proxy-y=2", "-v", "debug", "--proxy-z", "--b", "--proxy-last"})
	if want := []string{"--a", "-v", "debug", "--b"}; !slices.Equal(rest, want) || len(warnings) != 4 {
		t.Errorf("left %v, warned %v", rest, warnings)
	}
	if got := fmt.Sprint(warnings[0]); !strings.Contains(got, "--proxy-x") {
		t.Errorf("warned %s", got)
	}
}
