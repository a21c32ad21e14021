package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// manyPods are created and deleted at once, and nothing of them stays on any node.
func manyPods(w *world) {
	const pods = 200
	w.settle()
	before := map[string]remains{}
	for _, name := range w.members() {
		r, err := w.remains(name)
		w.must(err)
		before[name] = r
	}
	w.apply(fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: many}, spec: {replicas: %d,
		selector: {matchLabels: {app: many}}, template: {metadata: {labels: {app: many}}, spec: {terminationGracePeriodSeconds: 0,
		automountServiceAccountToken: false, enableServiceLinks: false,
		containers: [{name: busybox, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, "100000"]}]}}}}`, pods))
	w.kubectl("rollout", "status", "deployment/many", "--timeout=5m")
	w.progress("  %d pods run", pods)
	w.await("all pods to be accelerated", func(context.Context) error {
		more := 0
		for _, name := range w.members() {
			r, err := w.remains(name)
			if err != nil {
				return err
			}
			more += len(r.Entries) - len(before[name].Entries)
			if len(r.Entries) != len(r.Links) || len(r.Entries) != len(r.Addresses) {
				return fmt.Errorf("on %s there are %d entries, %d links and %d addresses of pods", name, len(r.Entries), len(r.Links), len(r.Addresses))
			}
		}
		if more != pods {
			return fmt.Errorf("%d pods have %d entries", pods, more)
		}
		return nil
	})
	w.kubectl("delete", "deployment", "many", "--cascade=foreground", "--timeout=5m")
	for _, name := range w.members() {
		w.await("nothing of the pods to be left on "+name, func(context.Context) error {
			now, err := w.remains(name)
			if err != nil {
				return err
			}
			return before[name].same(now)
		})
	}
}

// settle waits until no pod is on its way out.
func (w *world) settle() {
	w.Helper()
	w.await("the last pods that were deleted to be gone", func(ctx context.Context) error {
		out, err := w.server.Kubectl(ctx, "", "get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.deletionTimestamp}")
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New("some have been deleted at " + out)
		}
		return err
	})
}

// remains is what pods may leave behind on a node.
type remains struct{ Entries, Links, Devices, Addresses, Namespaces, Files []string }

func (w *world) remains(node string) (r remains, err error) {
	entries, links, err := w.attached(node)
	if err != nil {
		return r, err
	}
	for ip := range entries {
		r.Entries = append(r.Entries, ip.String())
	}
	slices.Sort(r.Entries)
	r.Links = links
	slices.Sort(r.Links)
	devices, err := w.nodes[node].Netlink().LinkList()
	if err != nil {
		return r, fmt.Errorf("list the devices of %s: %w", node, err)
	}
	for _, d := range devices {
		r.Devices = append(r.Devices, d.Attrs().Name)
	}
	slices.Sort(r.Devices)
	for folder, into := range map[string]*[]string{
		"/var/lib/cni/networks/pods": &r.Addresses, "/run/netns": &r.Namespaces,
		"/var/lib/cni": &r.Files, "/var/lib/raven": &r.Files, "/run/raven": &r.Files, "/sys/fs/bpf/raven": &r.Files,
	} {
		found, err := w.filesBelow(node, folder)
		if err != nil {
			return r, err
		}
		*into = append(*into, found...)
	}
	slices.Sort(r.Files)
	return r, nil
}

// filesBelow are the paths of a node's files, but for our plugin's log and what the address plugin keeps: its lock, and what
// it gave last.
func (w *world) filesBelow(node, folder string) (found []string, err error) {
	root := w.nodes[node].Path("/")
	err = filepath.WalkDir(w.nodes[node].Path(folder), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" && d.Name() != "cni.log" && !strings.HasPrefix(d.Name(), "last_reserved_ip") {
			found = append(found, strings.TrimPrefix(path, root))
		}
		if errors.Is(err, fs.ErrNotExist) { // it was deleted meanwhile
			err = nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s of %s: %w", folder, node, err)
	}
	return found, nil
}

// same is an error that names what is there later and was not before, or the other way round.
func (r remains) same(later remains) error {
	var errs []error
	for _, c := range []struct {
		what          string
		before, after []string
	}{
		{"entries", r.Entries, later.Entries}, {"links", r.Links, later.Links}, {"devices", r.Devices, later.Devices},
		{"addresses", r.Addresses, later.Addresses}, {"namespaces", r.Namespaces, later.Namespaces}, {"files", r.Files, later.Files},
	} {
		if slices.Equal(c.before, c.after) {
			continue
		}
		without := func(all, but []string) []string {
			return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(but, s) })
		}
		errs = append(errs, fmt.Errorf("%s: more are %v, missing %v", c.what, without(c.after, c.before), without(c.before, c.after)))
	}
	return errors.Join(errs...)
}
