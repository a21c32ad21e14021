package lab_test

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// block is the lines of the README's code block that begins with a line.
func block(t *testing.T, begin string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n```\n"+begin)
	inside, _, closed := strings.Cut(rest, "\n```\n")
	if !found || !closed {
		t.Fatalf("the README has no block that begins with %q", begin)
	}
	return strings.Split(begin+inside, "\n")
}

// TestWhatTheReadmeShowsOnANodeRunsThere runs the README's lines as they stand, with their comments, on a gateway and a member.
func TestWhatTheReadmeShowsOnANodeRunsThere(t *testing.T) {
	t.Parallel() // with the labs that check the tutorial
	l := withAgents(t, "documented", lab.Tutorial(), lab.AgentOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// Without traffic there is nothing to show.
	if _, err := l.Host("hangzhou-2/a").Ask(ctx, "tcp", netip.MustParseAddr("10.244.17.19")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Tool("ravenctl"); err != nil {
		t.Fatal(err)
	}
	// What each must print, for those where more is asked than success.
	prints := map[string]string{
		"ravenctl status": "region", "ravenctl drops": "dropped", "ravenctl trace": "10.244.17.19", "ip rule": "9027",
		"bridge fdb": "dst", "wg show": "latest handshake", "nft list": "spoofed_source", "bpftool net": "tc:", "curl -s localhost:10275": "ok",
		"curl -s localhost:10265": "raven_packets_total",
	}
	for _, line := range append(block(t, "ravenctl status"), block(t, "ip rule")...) {
		switch {
		case strings.HasPrefix(line, "ravenctl bench"):
			continue // needs a cluster: make e2e runs it
		case strings.Contains(line, " -w1s"): // goes on until it is interrupted
			command, comment, _ := strings.Cut(line, "#")
			line = "{ timeout -s INT 3 " + command + "|| [ $? = 124 ]; } #" + comment
		}
		for _, node := range []string{"hangzhou-2", "hangzhou-1"} {
			if node == "hangzhou-2" && strings.HasPrefix(line, "wg show") {
				continue // tunnels end at gateways
			}
			out, err := l.Host(node).Run(ctx, "bash", "-euo", "pipefail", "-c", "export PATH="+l.Dir+":$PATH; cd "+l.Dir+"\n"+line)
			if err != nil {
				t.Errorf("on %s: %s: %v\n%s", node, line, err, out)
			}
			for command, want := range prints {
				if strings.Contains(line, command) && !strings.Contains(strings.ToLower(out), want) {
					t.Errorf("on %s: %s prints no %q:\n%s", node, line, want, out)
				}
			}
		}
	}
}
