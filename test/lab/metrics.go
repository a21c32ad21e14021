package lab

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Sample is one line of an agent's metrics page.
type Sample struct {
	Name   string
	Labels map[string]string
	Value  float64
}

// Metrics is an agent's metrics page.
type Metrics []Sample

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// Metrics reads the agent's metrics page.
func (a *Agent) Metrics(ctx context.Context) (Metrics, error) {
	page, err := a.Get(ctx, "http://127.0.0.1:10265/metrics")
	if err != nil {
		return nil, err
	}
	var m Metrics
	for line := range strings.Lines(page) {
		f := sampleLine.FindStringSubmatch(strings.TrimSpace(line))
		if f == nil || strings.HasPrefix(line, "#") {
			continue
		}
		value, err := strconv.ParseFloat(f[3], 64)
		if err != nil {
			return nil, fmt.Errorf("read the metric %q of %s: %w", line, a.host.Name, err)
		}
		s := Sample{Name: f[1], Labels: map[string]string{}, Value: value}
		for _, pair := range labelPair.FindAllStringSubmatch(f[2], -1) {
			s.Labels[pair[1]] = pair[2]
		}
		m = append(m, s)
	}
	return m, nil
}

// Sum adds up the samples of a metric that have all of the labels, given as name, value, name, value...
func (m Metrics) Sum(name string, labels ...string) float64 {
	total := 0.0
	for _, s := range m {
		matches := s.Name == name
		for i := 0; i+1 < len(labels); i += 2 {
			matches = matches && s.Labels[labels[i]] == labels[i+1]
		}
		if matches {
			total += s.Value
		}
	}
	return total
}

// Metrics reads the metrics page of a node's agent.
func (l *Lab) Metrics(ctx context.Context, node string) (Metrics, error) {
	a := l.Agent(node)
	if a == nil {
		return nil, fmt.Errorf("no agent runs on %s", node)
	}
	return a.Metrics(ctx)
}

// Dropped is how many packets a node has dropped for a reason (see bpf/include/reasons.h), by BPF programs and by the
// nft table together.
func (l *Lab) Dropped(ctx context.Context, node, reason string) (float64, error) {
	m, err := l.Metrics(ctx, node)
	if err != nil {
		return 0, err
	}
	return m.Sum("raven_packets_total", "verdict", "drop", "reason", reason) +
		m.Sum("raven_filter_dropped_packets_total", "reason", reason), nil
}
