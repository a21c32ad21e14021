package checks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/test/lab"
)

// badInput is one thing that somebody got wrong.
type badInput struct {
	name string
	// manifest is one more file in the folder.
	manifest string
	// object, or a part of its name, and reason by which it must be reported.
	object, reason string
	// byIPsec is the reason where the regions' driver is ipsec; empty: the same.
	byIPsec string
}

// badNode is a node of region hangzhou.
func badNode(name, address, podCIDRs string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata:
  name: %s
  labels:
    raven.openyurt.io/gateway: gw-hangzhou
spec:%s
status:
  addresses:
    - type: InternalIP
      address: "%s"
  conditions:
    - type: Ready
      status: "True"
`, name, podCIDRs, address)
}

func cidrs(c string) string { return fmt.Sprintf("\n  podCIDR: %q\n  podCIDRs: [%q]", c, c) }

var badInputs = []badInput{
	{name: "a node without podCIDR", manifest: badNode("bad-1", "172.16.2.201", " {}"), object: "Node/bad-1", reason: "MissingPodCIDR"},
	{name: "a malformed CIDR", manifest: badNode("bad-1", "172.16.2.201", cidrs("10.244.300.0/24")), object: "Node/bad-1", reason: "MalformedCIDR"},
	{name: "an IPv6 prefix on a node without IPv6", manifest: badNode("bad-1", "172.16.2.201", cidrs("fd00:10:244:99::/64")),
		object: "Node/bad-1", reason: "PrefixFamilyMismatch"},
	{name: "an IPv6-only node in an IPv4 region", manifest: badNode("bad-1", "fd00:172:16:2::201", cidrs("fd00:10:244:99::/64")),
		object: "Node/bad-1", reason: "NodeFamilyMismatch"},
	{name: "two nodes of one region with the same address", manifest: badNode("bad-1", "172.16.2.201", cidrs("10.244.98.0/24")) + "---\n" +
		badNode("bad-2", "172.16.2.201", cidrs("10.244.99.0/24")), object: "Node/bad-2", reason: "DuplicateNodeIP"},
	{name: "a Gateway whose endpoint names no node", manifest: `apiVersion: raven.openyurt.io/v1beta1
kind: Gateway
metadata:
  name: gw-bad
spec:
  endpoints:
    - nodeName: nobody
      type: tunnel
      underNAT: true
`, object: "Gateway/gw-bad", reason: "EndpointNodeNotFound"},
	{name: "a peer with a bad key, or with another driver", manifest: `apiVersion: raven.openyurt.io/v1beta1
kind: Gateway
metadata:
  name: gw-bad
spec:
  exposeType: PublicIP
  endpoints:
    - nodeName: bad-1
      type: tunnel
      publicIP: 203.0.113.99
---
apiVersion: raven.openyurt.io/v1beta1
kind: TunnelEndpoint
metadata:
  name: bad-1
status:
  gateway: gw-bad
  tunnels:
    - driver: wireguard
      port: 4500
      publicKey: not a key
---
` + strings.ReplaceAll(badNode("bad-1", "172.16.9.201", cidrs("10.244.99.0/24")), "gw-hangzhou", "gw-bad"),
		object: "TunnelEndpoint/bad-1", reason: "PeerKeyInvalid", byIPsec: "PeerDriverMismatch"},
	{name: "YAML that does not parse", manifest: "kind: [Gateway\n", object: "bad.yaml", reason: "NotParsed"},
}

// BadInput puts each bad input into the manifests folder alone: everything else goes on without a lost packet, and the
// item is named in the log, a metric and the published status.
var BadInput = Check{
	Name: "bad-input",
	Says: "each bad input costs only itself and is named in log, metric and status; an empty folder tears nothing down",
	Run: func(ctx context.Context, l *lab.Lab) (evidence string, err error) {
		probers := []*lab.Prober{}
		defer func() {
			for _, p := range probers {
				r, stopErr := p.Stop(ctx)
				err = errors.Join(err, stopErr)
				if len(r.Lost) > 0 {
					err = errors.Join(err, fmt.Errorf("traffic suffered meanwhile: %s", r))
				}
				evidence += "; " + r.String()
			}
		}()
		for _, pair := range [][2]string{{"hangzhou-2/a", "qingdao-2/a"}, {"hangzhou-2", "qingdao-2"}} {
			p, err := probe(ctx, l, pair[0], pair[1], 4)
			if err != nil {
				return "", err
			}
			probers = append(probers, p)
		}
		for _, b := range badInputs {
			if b.byIPsec != "" && l.Options().Driver == "ipsec" {
				b.reason = b.byIPsec
			}
			if err := errors.Join(b.run(ctx, l), unharmed(ctx, probers)); err != nil {
				return "", fmt.Errorf("%s: %w", b.name, err)
			}
		}
		if err := errors.Join(emptyFolder(ctx, l), unharmed(ctx, probers)); err != nil {
			return "", fmt.Errorf("an empty manifests folder: %w", err)
		}
		return fmt.Sprintf("%d bad inputs", len(badInputs)+1), nil
	},
}

// unharmed: the traffic goes on, and nothing of it was lost until now.
func unharmed(ctx context.Context, probers []*lab.Prober) error {
	var err error
	for _, p := range probers {
		err = errors.Join(err, p.AwaitAnswers(ctx, 20))
		if lost := p.LostSoFar(); lost > 0 {
			err = errors.Join(err, fmt.Errorf("%d pings were lost", lost))
		}
	}
	return err
}

// reporter is the node whose agent is asked.
const reporter = "hangzhou-1"

func (b badInput) run(ctx context.Context, l *lab.Lab) error {
	logged := len(l.Agent(reporter).LogText())
	if err := l.WriteManifest("bad.yaml", b.manifest); err != nil {
		return err
	}
	err := errors.Join(
		lab.Await(ctx, "a metric that names it", func(ctx context.Context) error { return b.inMetrics(ctx, l, true) }),
		lab.Await(ctx, "the status that names it", func(context.Context) error { return b.inStatus(l) }),
		b.inLog(l.Agent(reporter).LogText()[logged:]),
		l.RemoveManifest("bad.yaml"),
	)
	return errors.Join(err, lab.Await(ctx, "the complaint to end with its cause", func(ctx context.Context) error {
		return b.inMetrics(ctx, l, false)
	}))
}

func (b badInput) inMetrics(ctx context.Context, l *lab.Lab, want bool) error {
	m, err := l.Metrics(ctx, reporter)
	if err != nil {
		return err
	}
	var known []string
	found := false
	for _, s := range m {
		if s.Name == "raven_problem" {
			known = append(known, s.Labels["object"]+" "+s.Labels["reason"])
			found = found || strings.Contains(s.Labels["object"], b.object) && s.Labels["reason"] == b.reason
		}
	}
	if found != want {
		return fmt.Errorf("problems are %q, %s %s among them: %t", known, b.object, b.reason, found)
	}
	return nil
}

func (b badInput) inStatus(l *lab.Lab) error {
	endpoint, err := publishedBy(l, reporter)
	if err != nil {
		return err
	}
	for _, p := range endpoint.Status.Problems {
		if strings.Contains(p.Object, b.object) && p.Reason == b.reason {
			return nil
		}
	}
	return fmt.Errorf("the problems in the status are %v", endpoint.Status.Problems)
}

func (b badInput) inLog(text string) error {
	for line := range strings.Lines(text) {
		if strings.Contains(line, b.object) && strings.Contains(line, b.reason) {
			return nil
		}
	}
	return fmt.Errorf("no line of the log names %s and %s: %s", b.object, b.reason, text)
}

// publishedBy reads the TunnelEndpoint that a node's agent published.
func publishedBy(l *lab.Lab, node string) (*v1beta1.TunnelEndpoint, error) {
	files, err := l.ManifestFiles()
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		content, err := l.ReadManifest(name)
		if err != nil {
			continue // replaced meanwhile
		}
		var endpoint v1beta1.TunnelEndpoint
		if yaml.Unmarshal([]byte(content), &endpoint) == nil && endpoint.Kind == "TunnelEndpoint" && endpoint.Name == node {
			return &endpoint, nil
		}
	}
	return nil, fmt.Errorf("%s has published no TunnelEndpoint among %v", node, files)
}

// emptyFolder takes all manifests away and puts them back.
func emptyFolder(ctx context.Context, l *lab.Lab) error {
	files, err := l.ManifestFiles()
	if err != nil {
		return err
	}
	contents := map[string]string{}
	for _, name := range files {
		if contents[name], err = l.ReadManifest(name); err != nil {
			return err
		}
	}
	for _, name := range files {
		if err := l.RemoveManifest(name); err != nil {
			return err
		}
	}
	err = awaitEmptied(ctx, l, "notice", true)
	for name, content := range contents {
		err = errors.Join(err, l.WriteManifest(name, content))
	}
	return errors.Join(err, awaitEmptied(ctx, l, "go on", false))
}

// awaitEmptied waits until all agents complain, or do not, that nothing is left in their folder.
func awaitEmptied(ctx context.Context, l *lab.Lab, what string, want bool) error {
	return lab.Await(ctx, "the agents to "+what, func(ctx context.Context) error {
		for _, node := range l.Nodes() {
			m, err := l.Metrics(ctx, node)
			if err != nil {
				return err
			}
			if emptied := m.Sum("raven_problem", "reason", "NothingLeft") > 0; emptied != want {
				return fmt.Errorf("%s complains that nothing is left: %t", node, emptied)
			}
		}
		return nil
	})
}
