package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

const (
	namespace = "kube-system"
	daemonSet = "raven-agent-ds"
)

// onNode runs this very command in the agent's pod on another node, by kubectl exec: under the caller's own rights, and
// through no port of Raven's. It is how every command reaches a remote node.
func (c *command) onNode(ctx context.Context, node string, args []string) error {
	pod, err := c.agentPod(ctx, node)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"exec", "-n", namespace, pod, "--", "ravenctl"}, args...)...)
	cmd.Stdout, cmd.Stderr = c.out, c.err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run ravenctl on node %s (kubectl exec needs create on pods/exec in %s): %w", node, namespace, err)
	}
	return nil
}

// agentPod finds the agent's pod on a node, as pod/<name>.
func (c *command) agentPod(ctx context.Context, node string) (string, error) {
	// Pods that were evicted stay in the list.
	out, err := c.kubectl(ctx, "get", "pods", "-n", namespace, "-o", "name", "--field-selector", "spec.nodeName="+node+",status.phase=Running")
	if err != nil {
		return "", fmt.Errorf("find the agent's pod on node %s: %w", node, err)
	}
	for _, pod := range strings.Fields(out) {
		if strings.HasPrefix(pod, "pod/"+daemonSet) {
			return pod, nil
		}
	}
	return "", fmt.Errorf("no pod of DaemonSet %s/%s runs on node %s: is the name right (kubectl get nodes), and what does kubectl get pods "+
		"-n %s -o wide say of that node's pod?", namespace, daemonSet, node, namespace)
}

func (c *command) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Stderr = c.err
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

// withoutNode takes --node and its value out of the arguments; ok is false where it was not given.
func withoutNode(args []string) (rest []string, node string, ok bool) {
	for i := 0; i < len(args); i++ {
		value, joined := strings.CutPrefix(args[i], "--node=")
		switch {
		case joined:
			node, ok = value, true
		case args[i] == "--node" && i+1 < len(args):
			i++
			node, ok = args[i], true
		default:
			rest = append(rest, args[i])
		}
	}
	return rest, node, ok
}

// kubectlFound says whether kubectl can be run.
func kubectlFound() error {
	if _, err := exec.LookPath("kubectl"); err != nil {
		return fmt.Errorf("--node needs kubectl in %s: %w", os.Getenv("PATH"), err)
	}
	return nil
}
