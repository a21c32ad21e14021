package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ravencni/raven/test/cluster/node"
)

// fights has others write the configuration of a node's network, each in a way of its own on a node of its own. Pods start
// there, are accelerated in the end, and nothing of another's is lost: a fight returns what the list has to be without Raven.
func fights(w *world) {
	var fighting errgroup.Group
	var mu sync.Mutex
	for name, fight := range map[string]func(*world, string) (left string, err error){
		"cloud-2": anotherWriter, "hangzhou-2": truncated, "qingdao-2": readOnly, "hangzhou-1": chainedBehind,
	} {
		fighting.Go(func() error {
			left, err := fight(w, name)
			if err != nil {
				return fmt.Errorf("on %s: %w", name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			w.lists[name] = left
			return nil
		})
	}
	w.must(fighting.Wait())
	events := w.kubectl("get", "events", "-A", "--field-selector=reason=FailedCreatePodSandBox", "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}")
	if strings.Contains(events, "raven") {
		w.Errorf("pods failed to start:\n%s", events)
	}
}

// listOf is the list of a node as it has to be without Raven.
func (w *world) listOf(name string) string {
	if list, changed := w.lists[name]; changed {
		return list
	}
	return node.Conflist(w.nodes[name].Network, w.nodes[name].Pods)
}

func (w *world) conflistOf(name string) string {
	return w.nodes[name].Path(filepath.Join(node.ConflistFolder, node.ConflistFile))
}

// podsStart starts pods on a node one after the other, waits until they are accelerated, and deletes them.
func (w *world) podsStart(node string, count int) error {
	ctx := w.within(patience)
	for i := range count {
		name := fmt.Sprintf("fight-%s-%d", node, i)
		if _, err := w.server.Kubectl(ctx, sleeper(name, node), "apply", "-f", "-"); err != nil {
			return err
		}
		if _, err := w.server.Kubectl(ctx, "", "wait", "pod/"+name, "--for=condition=Ready", "--timeout=3m"); err != nil {
			return err
		}
		ip, err := w.addressOf(name)
		if err != nil {
			return err
		}
		if err := w.awaited("the program at the pod "+name, func(context.Context) error { return w.isAttached(node, ip) }); err != nil {
			return err
		}
		if _, err := w.server.Kubectl(ctx, "", "delete", "pod", name, "--wait=false"); err != nil {
			return err
		}
	}
	return nil
}

// reported waits until an Event tells of a problem of a node.
func (w *world) reported(node, reason string) error {
	return w.awaited("an Event "+reason+" of "+node, func(ctx context.Context) error {
		out, err := w.server.Kubectl(ctx, "", "get", "events", "-A", "--field-selector=reason="+reason+",involvedObject.name="+node, "-o", "name")
		if err == nil && out == "" {
			err = errors.New("there is none")
		}
		return err
	})
}

// calls waits until the list of a node has the plugin, and all of what another wrote.
func (w *world) calls(name, others string) error {
	return w.awaited("the plugin in the list of "+name, func(context.Context) error {
		list, err := os.ReadFile(w.conflistOf(name))
		if err != nil {
			return err
		}
		if text := string(list); !strings.Contains(text, `"raven-cni"`) || !strings.Contains(text, others) {
			return fmt.Errorf("%q and the plugin are not both in\n%s", others, text)
		}
		return nil
	})
}

// anotherWriter writes the list anew ten times a second, with a growing number under a key that nobody knows.
func anotherWriter(w *world, name string) (left string, err error) {
	const times, every = 80, 100 * time.Millisecond
	list := w.listOf(name)
	number := func(i int) string { return fmt.Sprintf(`"unknown": %d`, i) }
	writing := make(chan error, 1)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		var err error
		for i := 0; i < times && err == nil; i++ {
			left = strings.Replace(list, `"name": "pods",`, `"name": "pods", `+number(i)+`,`, 1)
			temporary := w.conflistOf(name) + ".tmp"
			err = os.WriteFile(temporary, []byte(left), 0o600)
			if err == nil {
				err = os.Rename(temporary, w.conflistOf(name))
			}
			<-tick.C
		}
		writing <- err
	}()
	err = w.podsStart(name, 3)
	err = errors.Join(err, <-writing)
	return left, errors.Join(err, w.reported(name, "CNIConfigRewritten"), w.calls(name, number(times-1)), w.podsStart(name, 1))
}

// truncated writes half of the list, and the rest only two seconds later.
func truncated(w *world, name string) (list string, err error) {
	list = w.listOf(name)
	half := list[:len(list)/2]
	if err := os.WriteFile(w.conflistOf(name), []byte(half), 0o600); err != nil {
		return "", err
	}
	w.rest(2 * time.Second)
	found, err := os.ReadFile(w.conflistOf(name))
	if err == nil && string(found) != half {
		err = fmt.Errorf("while half of the list stood there, somebody made of it\n%s", found)
	}
	return list, errors.Join(err, os.WriteFile(w.conflistOf(name), []byte(list), 0o600), w.calls(name, "portMappings"), w.podsStart(name, 2))
}

// readOnly is a folder that the agent cannot write, and another can.
func readOnly(w *world, name string) (list string, err error) {
	const writable = "/run/writable-cni"
	list = w.listOf(name)
	run := func(command ...string) error {
		_, err := w.nodes[name].Run(w.Context(), command[0], command[1:]...)
		return err
	}
	for _, command := range [][]string{
		{"mkdir", writable}, {"mount", "--bind", node.ConflistFolder, writable},
		{"mount", "--bind", node.ConflistFolder, node.ConflistFolder}, {"mount", "-o", "remount,bind,ro", node.ConflistFolder},
	} {
		if err := run(command...); err != nil {
			return "", err
		}
	}
	if err := w.newAgent(name); err != nil {
		return "", err
	}
	others := w.nodes[name].Path(filepath.Join(writable, node.ConflistFile))
	err = errors.Join(os.WriteFile(others, []byte(list), 0o600), w.reported(name, "CNIConfigNotWritten"), w.podsStart(name, 2))
	found, readErr := os.ReadFile(others)
	if err = errors.Join(err, readErr); err == nil && string(found) != list {
		err = fmt.Errorf("the list in a read-only folder is\n%s", found)
	}
	err = errors.Join(err, run("umount", node.ConflistFolder), run("umount", writable))
	return list, errors.Join(err, w.newAgent(name), w.calls(name, "portMappings"), w.podsStart(name, 1))
}

// newAgent has the agent of a node start anew, as nothing else makes its pod see other mounts.
func (w *world) newAgent(name string) error {
	ctx := w.within(patience)
	find := []string{"-n", "kube-system", "get", "pod", "-l", agentLabels, "--field-selector=spec.nodeName=" + name, "-o", "jsonpath={.items[*].metadata.name}"}
	old, err := w.server.Kubectl(ctx, "", find...)
	if err != nil {
		return err
	}
	if _, err := w.server.Kubectl(ctx, "", "-n", "kube-system", "delete", "pod", old); err != nil {
		return err
	}
	return w.awaited("a new agent on "+name, func(ctx context.Context) error {
		pod, err := w.server.Kubectl(ctx, "", find...)
		if err == nil && (pod == "" || pod == old) {
			err = errors.New("there is none yet")
		}
		if err != nil {
			return err
		}
		_, err = w.server.Kubectl(ctx, "", "-n", "kube-system", "wait", "pod/"+pod, "--for=condition=Ready", "--timeout=20s")
		return err
	})
}

// chainedBehind puts another plugin behind ours, with a key that nobody knows.
func chainedBehind(w *world, name string) (left string, err error) {
	const before = `{"type": "portmap", "capabilities": {"portMappings": true}}`
	const ours, behind = `{ "type": "raven-cni" }`, `{"type": "tuning", "sysctl": {"net.core.somaxconn": "567"}, "unknown": [1,2 ]}`
	list, err := os.ReadFile(w.conflistOf(name))
	if err != nil {
		return "", err
	}
	if !strings.Contains(string(list), ours) {
		return "", fmt.Errorf("there is no plugin in\n%s", list)
	}
	both := strings.Replace(string(list), ours, ours+", "+behind, 1)
	left = strings.Replace(w.listOf(name), before, before+", "+behind, 1)
	if err := errors.Join(os.WriteFile(w.conflistOf(name), []byte(both), 0o600), w.podsStart(name, 2)); err != nil {
		return "", err
	}
	found, err := os.ReadFile(w.conflistOf(name))
	if err == nil && string(found) != both {
		err = fmt.Errorf("of a list with a plugin behind ours became\n%s", found)
	}
	return left, errors.Join(err, w.behindRuns(name))
}

// behindRuns looks into a new pod for what the plugin behind ours sets.
func (w *world) behindRuns(node string) error {
	ctx := w.within(patience)
	const name = "behind"
	if _, err := w.server.Kubectl(ctx, sleeper(name, node), "apply", "-f", "-"); err != nil {
		return err
	}
	if _, err := w.server.Kubectl(ctx, "", "wait", "pod/"+name, "--for=condition=Ready", "--timeout=3m"); err != nil {
		return err
	}
	out, err := w.server.Kubectl(ctx, "", "exec", name, "--", "cat", "/proc/sys/net/core/somaxconn")
	if err == nil && strings.TrimSpace(out) != "567" {
		err = fmt.Errorf("the plugin behind ours did not set what it was told: %s", out)
	}
	return err
}
