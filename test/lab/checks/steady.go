package checks

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/ravencni/raven/test/lab"
)

// steadyMaps are the maps that only the agent writes.
var steadyMaps = []string{"raven_config", "raven_fib4", "raven_fib6", "raven_nexthops", "raven_pods", "raven_members"}

// TenApplies lets every agent apply ten times and sees that nothing was written.
var TenApplies = Check{
	Name: "ten-applies",
	Says: "ten applies in a row change nothing: no netlink or nft event, no map update, on any node",
	Run: func(ctx context.Context, l *lab.Lab) (evidence string, err error) {
		watchers := map[string]*lab.Monitor{}
		defer func() {
			for _, m := range watchers {
				err = errors.Join(err, m.Stop())
			}
		}()
		for _, node := range l.Nodes() {
			if watchers[node], err = l.Host(node).Monitor(ctx); err != nil {
				return "", err
			}
		}
		before, err := written(ctx, l)
		if err != nil {
			return "", err
		}
		if err := applyTimes(ctx, l, 10); err != nil {
			return "", err
		}
		after, err := written(ctx, l)
		if err != nil {
			return "", err
		}
		for _, node := range l.Nodes() {
			events, eventsErr := watchers[node].Events(ctx)
			err = errors.Join(err, eventsErr)
			if len(events) > 0 {
				err = errors.Join(err, fmt.Errorf("events on %s: %s", node, strings.Join(events, "; ")))
			}
		}
		for _, what := range slices.Sorted(maps.Keys(before)) {
			if before[what] != after[what] {
				err = errors.Join(err, fmt.Errorf("%s: before %s, after %s", what, before[what], after[what]))
			}
		}
		return fmt.Sprintf("%d nodes, 10 applies each, %d monitors silent", len(l.Nodes()), 3*len(watchers)), err
	},
}

// applyTimes gives all agents a new input that changes nothing, n times, each time until every one has applied it.
func applyTimes(ctx context.Context, l *lab.Lab, n int) error {
	gateway := "gateway-" + l.Spec.Regions[0].Name + ".yaml"
	manifest, err := l.ReadManifest(gateway)
	if err != nil {
		return err
	}
	for i := range n {
		before, err := passes(ctx, l)
		if err != nil {
			return err
		}
		labelled := strings.Replace(manifest, "\nspec:", fmt.Sprintf("\n  labels: {round: \"%d\"}\nspec:", i), 1)
		if err := l.WriteManifest(gateway, labelled); err != nil {
			return err
		}
		err = lab.Await(ctx, "all agents to apply", func(ctx context.Context) error {
			now, err := passes(ctx, l)
			if err != nil {
				return err
			}
			for node := range before {
				if now[node] <= before[node] {
					return fmt.Errorf("%s has not", node)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return l.WriteManifest(gateway, manifest)
}

func passes(ctx context.Context, l *lab.Lab) (map[string]float64, error) {
	all := map[string]float64{}
	for _, node := range l.Nodes() {
		m, err := l.Metrics(ctx, node)
		if err != nil {
			return nil, err
		}
		all[node] = m.Sum("raven_pass_duration_seconds_count")
	}
	return all, nil
}

// written is what the agents have written so far, by their own count, and what is in the BPF maps.
func written(ctx context.Context, l *lab.Lab) (map[string]string, error) {
	all := map[string]string{}
	for _, node := range l.Nodes() {
		m, err := l.Metrics(ctx, node)
		if err != nil {
			return nil, err
		}
		for _, s := range m {
			if s.Name == "raven_applier_changes_total" {
				all["writes of "+s.Labels["applier"]+" on "+node] = fmt.Sprint(s.Value)
			}
		}
		if !l.Options().Accelerated() {
			continue
		}
		for _, name := range steadyMaps {
			if all[name+" on "+node], err = content(l.Host(node), name); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// content is a digest of a pinned map.
func content(h *lab.Host, name string) (string, error) {
	m, err := ebpf.LoadPinnedMap(h.Path(path.Join(pinned, name)), nil)
	if err != nil {
		return "", fmt.Errorf("open %s on %s: %w", name, h.Name, err)
	}
	digest := sha256.New()
	var key, value []byte
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		digest.Write(key) // never fails
		digest.Write(value)
	}
	if err := errors.Join(entries.Err(), m.Close()); err != nil {
		return "", fmt.Errorf("read %s on %s: %w", name, h.Name, err)
	}
	return fmt.Sprintf("%x", digest.Sum(nil)), nil
}
